"""The calls of a network in the order it makes them, and the values through which everything passes.

Works for any module whose forward makes the same calls for every batch: layers, functions and the operators
of an exported graph are all seen as calls of torch functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d", "convolution", "_convolution"})


@dataclass(frozen=True)
class CutPoint:
    """A value of four dimensions from which alone all that follows is computed.

    Attributes:
        call: number of the call that gives it.
        shape: channels, height, width.
        convolutions: made up to and with this call.
    """

    call: int
    shape: tuple[int, int, int]
    convolutions: int


class Tracer(TorchFunctionMode):
    """Records, while it is entered, which call gives and which calls use every value made from ``images``.

    Args:
        images: ``(N, C, H, W)``, given to the network.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._count = len(images)
        self._calls = self._convolutions = 0
        # Values are kept, so that no other tensor gets the id of one that is gone.
        self._kept: list[Tensor] = [images]
        self._call_of = {id(images): -1}
        self._last_use = {-1: -1}
        self._found: list[CutPoint] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the call and note what it used and gave."""
        used = {self._call_of[id(t)] for t in _tensors([args, kwargs or {}]) if id(t) in self._call_of}
        result = func(*args, **(kwargs or {}))
        given = list(_tensors(result))
        if given:
            self._note(getattr(func, "__name__", ""), used, given, whole=isinstance(result, Tensor))
        return result

    def call_of(self, value: Tensor) -> int | None:
        """The call that gave a value; None if it was not made from the images."""
        return self._call_of.get(id(value))

    def cuts(self) -> list[CutPoint]:
        """All values from which alone the rest is computed, in order."""
        found, latest = [], -1
        uses = sorted(self._last_use.items())
        position = 0
        for cut in self._found:
            while position < len(uses) and uses[position][0] < cut.call:
                latest = max(latest, uses[position][1])
                position += 1
            if latest <= cut.call < self._last_use[cut.call]:
                found.append(cut)
        return found

    def cut_at(self, call: int) -> CutPoint | None:
        """The value of a call, whether or not the rest needs others; None if it has not four dimensions."""
        return next((cut for cut in self._found if cut.call == call), None)

    def _note(self, name: str, used: set[int], given: list[Tensor], *, whole: bool) -> None:
        call, self._calls = self._calls, self._calls + 1
        self._convolutions += name.partition(".")[0] in _CONVOLUTIONS
        if not used:
            return
        for earlier in used:
            self._last_use[earlier] = call
        self._last_use[call] = call
        for value in given:
            self._kept.append(value)
            self._call_of[id(value)] = call
        if whole and given[0].ndim == 4 and len(given[0]) == self._count:
            _, channels, height, width = given[0].shape
            self._found.append(CutPoint(call, (channels, height, width), self._convolutions))


class _Reached(Exception):
    """The last value that is wanted was computed."""


class Capture(TorchFunctionMode):
    """Keeps, while it is entered, the results of some calls, and ends the network's run after the last.

    Args:
        calls: their numbers, ascending, as ``Tracer`` counts.
    """

    def __init__(self, calls: tuple[int, ...]) -> None:
        super().__init__()
        self._wanted = calls
        self._calls = 0
        self.values: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the call and keep what it gave if it is wanted."""
        result = func(*args, **(kwargs or {}))
        if any(True for _ in _tensors(result)):
            if self._calls == self._wanted[len(self.values)]:
                # A copy, because a later call may work in place.
                self.values.append(result.clone())
                if len(self.values) == len(self._wanted):
                    raise _Reached
            self._calls += 1
        return result

    def run(self, network: Callable[[Tensor], Any], images: Tensor) -> list[Tensor]:
        """The values that these calls give for ``images``, without gradients."""
        try:
            with torch.no_grad(), self:
                network(images)
        except _Reached:
            pass
        return self.values


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
