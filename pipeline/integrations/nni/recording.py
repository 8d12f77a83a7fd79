"""What a module does when it runs: its operations on tensors, as content that can be compared."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from devices.digests import value_digest


class Record:
    """The operations that ran while the record was open, from an input on.

    Tensors are numbered in the order of their first use and described by shape and type. So modules that do
    the same with weights of the same shapes have equal records, whatever their weights and names are.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products.
    """

    def __init__(self, inputs: Tensor) -> None:
        self.macs = 0
        self._numbers: dict[int, int] = {}
        self._kept: list[Tensor] = []  # else a new tensor could have the address of an old one
        self._content: list[Any] = [self._described(inputs)]

    def add(self, operation: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Keep one operation."""
        self._content.append([str(operation), *map(self._described, (args, kwargs, result))])
        if operation.overloadpacket in flop_registry:
            self.macs += flop_registry[operation.overloadpacket](*args, **kwargs, out_val=result) // 2

    @property
    def is_empty(self) -> bool:
        """Whether nothing was computed, as in an ``nn.Identity``."""
        return len(self._content) == 1

    def identity(self, output: Tensor) -> str:
        """Digest of what was done to make ``output``."""
        return value_digest([*self._content, self._described(output)])

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


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, every operation of this thread is added to the records that are open."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.open: list[Record] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and keep it."""
        result = func(*args, **(kwargs or {}))
        for record in self.open:
            record.add(func, args, kwargs or {}, result)
        return result
