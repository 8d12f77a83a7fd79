"""The inputs that somebody gives a model, by name; Lathe chooses the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from devices.inputs.reading import InputFile

__all__ = ["NOTHING", "Fill", "Given", "GivenInput"]


@dataclass(frozen=True)
class Fill:
    """How an input is filled: with zeros, ones, random numbers, those of a range, or one value.

    Attributes:
        low: of a range, included.
        high: of a range, included.
        value: the one value.
    """

    kind: Literal["zeros", "ones", "random", "range", "value"]
    low: float = 0
    high: float = 0
    value: float = 0

    def message(self) -> dict[str, Any]:
        """For the agent."""
        ends = {"low": self.low, "high": self.high} if self.kind == "range" else {}
        return {"kind": self.kind, **ends, **({"value": self.value} if self.kind == "value" else {})}


@dataclass(frozen=True)
class GivenInput:
    """What is given of one input: a shape, and values from a file or by a rule."""

    name: str
    shape: tuple[int, ...] | None = None
    values: Fill | InputFile | None = None


@dataclass(frozen=True)
class Given:
    """What a model is given.

    Attributes:
        inputs: those of which anything is given.
        signature: which part of a ``.tflite`` file is meant; empty for its first.
    """

    inputs: tuple[GivenInput, ...] = ()
    signature: str = ""

    def __bool__(self) -> bool:
        return self != NOTHING

    @property
    def shapes(self) -> str:
        """The shapes that are given, as options write them."""
        given = [(each.name, each.shape) for each in self.inputs if each.shape is not None]
        return " ".join(f"{name}={','.join(map(str, shape))}" for name, shape in given)

    def message(self, push: Callable[[Path], str]) -> dict[str, Any]:
        """For the agent: ``devices/agent/inputs.py`` says of what form.

        Args:
            push: puts a file on the device, and gives its path there.
        """
        shapes: dict[str, Any] = {}
        fills: dict[str, Any] = {}
        for each in self.inputs:
            if each.shape is not None:
                shapes[each.name] = list(each.shape)
            if isinstance(each.values, InputFile):
                shapes.setdefault(each.name, each.values.sizes())
                path = push(each.values.npy)
                fills[each.name] = {
                    "kind": "file",
                    "path": path,
                    "form": each.values.form,
                    "said": each.values.said,
                }
            elif each.values is not None:
                fills[each.name] = each.values.message()
        return {"shapes": shapes, "fills": fills, "signature": self.signature}


NOTHING = Given()
