"""What a model was fed with while it was timed: a latency holds for these shapes and values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["InputUse", "fed_alike", "sizes"]


@dataclass(frozen=True)
class InputUse:
    """One input of a model as it was when the model was timed.

    Attributes:
        name: in the model.
        dtype: as numpy or ONNX calls it.
        shape: the sizes that were used.
        declared: the sizes that the model declares; an open one is its name, or ``?``.
        fill: how it was filled, in words of the option ``--fill``, or the file that was given.
        assumed: axes that are open in the model and got a size although none was given.
        given: the values were given; otherwise they were chosen by type and name.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    declared: tuple[str, ...]
    fill: str
    assumed: tuple[int, ...] = ()
    given: bool = False

    def __post_init__(self) -> None:
        """Check that the sizes fit each other, since they may come with a file.

        Raises:
            ValueError: they do not.
        """
        rank = len(self.shape)
        if len(self.declared) != rank or not all(0 <= axis < rank for axis in self.assumed):
            raise ValueError(f"the sizes of input {self.name!r} do not fit each other")

    def __str__(self) -> str:
        return f"{self.name} {sizes(self.shape)} {self.dtype} {self.fill}"

    @property
    def option(self) -> str:
        """The option that gives the sizes which were assumed, with words in place of those."""
        words = [str(size) for size in self.shape]
        for axis in self.assumed:
            named = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.declared[axis])
            words[axis] = self.declared[axis].upper() if named else "N"
        name = self.name if re.fullmatch(r"[\w.:/-]+", self.name) else f"'{self.name}'"
        return f"--shape {name}={','.join(words)}"

    @property
    def assumption(self) -> str:
        """Which sizes were assumed, in words; empty where none were."""
        if not self.assumed:
            return ""
        return f"{self.name} {sizes(self.declared)} was taken as {sizes(self.shape)}"


def sizes(shape: tuple[int, ...] | tuple[str, ...]) -> str:
    """A shape for people."""
    return f"[{', '.join(map(str, shape))}]"


def fed_alike(first: Sequence[InputUse], second: Sequence[InputUse]) -> bool:
    """Whether two models were fed with as many numbers, in whatever layout, as far as they tell."""
    counts = [sorted(math.prod(each.shape) for each in inputs) for inputs in (first, second)]
    return not all(counts) or counts[0] == counts[1]
