"""What evaluators of untrained networks share: what a seed draws, images, and what is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from devices.digests import value_digest
from pipeline.data.base import Dataset
from pipeline.data.tensors import to_tensor
from pipeline.spaces.base import Architecture

ATEN = torch.ops.aten
ACTIVATIONS = frozenset(
    (
        ATEN.relu.default,
        ATEN.relu_.default,
        ATEN.hardtanh.default,
        ATEN.hardtanh_.default,
        ATEN.hardswish.default,
        ATEN.hardswish_.default,
        ATEN.silu.default,
        ATEN.silu_.default,
        ATEN.gelu.default,
        ATEN.clamp_min.default,
        ATEN.clamp_min_.default,
    )
)
"""Operations whose sign of the input tells images apart."""


@contextmanager
def drawn(seed: int, architecture: Architecture) -> Iterator[None]:
    """While the block runs, torch draws what seed and architecture alone decide; afterwards as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(value_digest([seed, architecture.identity])[:8], 16))
        yield


def images_of(dataset: Dataset, count: int) -> Tensor:
    """The first train images, which come in a random order: ``(count, C, H, W)``, or as many as there are."""
    images = to_tensor(dataset.train.images[:count], dataset.preprocessing)
    # Nearly twice as fast on CPUs.
    return images.contiguous(memory_format=torch.channels_last)


class Activations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, tells ``watch`` the input of every activation function, module or not."""

    def __init__(self, watch: Callable[[Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watch = watch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in ACTIVATIONS:
            self._watch(args[0])
        return func(*args, **(kwargs or {}))


def without_gradients(network: nn.Module) -> nn.Module:
    """The network in training mode, in which its norms use the statistics of the batch; frozen."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.train().requires_grad_(False)
