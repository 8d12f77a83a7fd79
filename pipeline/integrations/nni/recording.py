"""What a module does when it runs: its operations on tensors, as content that can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from devices.digests import value_digest


@dataclass(frozen=True)
class Trace:
    """One run of a module.

    Attributes:
        output: what came out, whatever it is.
        identity: digest of the operations; ``None`` where nothing is computed, as in an ``nn.Identity``.
        macs: multiply-accumulates of convolutions and matrix products.
    """

    output: Any
    identity: str | None
    macs: int


def trace(module: nn.Module, inputs: Tensor) -> Trace:
    """Run a module and keep what it does.

    Tensors are numbered in the order of their first use and described by shape and type. So modules that do
    the same with weights of the same shapes have one identity, whatever their weights and names are.
    """
    with torch.no_grad(), _Recorder(inputs) as recorder:
        output = module(inputs)
    return Trace(output, recorder.identity(output), recorder.macs)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, inputs: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0
        self._numbers: dict[int, int] = {}
        self._kept: list[Tensor] = []  # else a new tensor could have the address of an old one
        self._input = self._described(inputs)
        self._operations: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._operations.append([str(func), *map(self._described, (args, kwargs, result))])
        if func.overloadpacket in flop_registry:
            self.macs += flop_registry[func.overloadpacket](*args, **kwargs, out_val=result) // 2
        return result

    def identity(self, output: Any) -> str | None:
        if not self._operations:
            return None
        return value_digest([self._input, self._operations, self._described(output)])

    def _described(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            self._kept.append(value)
            number = self._numbers.setdefault(id(value), len(self._numbers))
            return ["tensor", number, list(value.shape), str(value.dtype)]
        if isinstance(value, (list, tuple)):
            return [self._described(each) for each in value]
        if isinstance(value, dict):
            return [[key, self._described(each)] for key, each in value.items()]
        return repr(value)
