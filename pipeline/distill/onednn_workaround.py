"""A way round a fault of oneDNN 3.12 (torch 2.13 on CPUs) that ends a training with a segmentation fault.

The gradient of the weights of a 1x1 convolution with a stride and 2 to 15 input channels, channels last, goes
wrong where several threads share a batch that they cannot divide evenly. The same convolution without a
stride, of an input from which the skipped pixels were left out before, gives the same values and is safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

_SAFE_CHANNELS = 16


@contextmanager
def sampled_before_convolution(network: nn.Module) -> Iterator[None]:
    """While the block runs, the convolutions of ``network`` at risk skip pixels before they convolve.

    Outputs, gradients and the state dict stay what they are.
    """
    changed = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _at_risk(module):
            stride = module.stride
            changed.append((module, stride, module.register_forward_pre_hook(_Sample(*stride))))
            module.stride = (1, 1)
    try:
        yield
    finally:
        for module, stride, hook in changed:
            hook.remove()
            module.stride = stride


class _Sample:
    def __init__(self, rows: int, columns: int) -> None:
        self._rows, self._columns = rows, columns

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
        images: Tensor = inputs[0]
        return images[..., :: self._rows, :: self._columns]


def _at_risk(convolution: nn.Conv2d) -> bool:
    return (
        convolution.kernel_size == (1, 1)
        and max(convolution.stride) > 1
        and convolution.padding in ((0, 0), "valid")
        and convolution.groups == 1
        and convolution.in_channels < _SAFE_CHANNELS
    )
