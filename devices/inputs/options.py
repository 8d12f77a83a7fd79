"""Inputs as they are written in a command: ``x=1,3,48,320``, ``x=value:16000``, ``x=photo.png``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from devices.errors import MeasurementError
from devices.inputs.given import Fill, Given, GivenInput
from devices.inputs.reading import InputFile, read_input

__all__ = ["given_from"]

MOST_SIZE = 2**31 - 1
MOST_RANK = 16
FILLS = "zeros, ones, random, range:LOW,HIGH or value:NUMBER"

Splits = Sequence[tuple[str, str]]
"""The ways to cut an option in two."""


def given_from(
    shapes: Sequence[str],
    fills: Sequence[str],
    files: Sequence[str],
    signature: str,
    folder: Path,
    *,
    names: Collection[str] = (),
) -> tuple[Given, ...]:
    """What models are given, once for each shape of a sweep.

    Several shapes of one input are a sweep. If several inputs have several shapes, the first goes with the
    first, and so on; an input with one shape has it throughout.

    Args:
        shapes: ``NAME=SIZE,SIZE``.
        fills: ``NAME=RULE``.
        files: ``NAME=FILE``.
        signature: of ``.tflite`` files; empty for the first.
        folder: where the files are made ready for devices.
        names: of the models' inputs, as far as they are known: such a name may hold ``=``, as a file's may.

    Raises:
        MeasurementError: one is badly written, a file cannot be read, an input has two sources of values, or
            the numbers of shapes differ.
    """
    sizes: dict[str, list[tuple[int, ...]]] = {}
    for text in shapes:
        name, shape = _shape(text)
        if shape not in sizes.setdefault(name, []):
            sizes[name].append(shape)
    values: dict[str, Fill | InputFile] = {}
    for text in fills:
        name, rule = _split(text, "--fill", _last)
        _only_once(name, values)
        values[name] = _fill(text, rule)
    for text in files:
        name, path = _split(text, "--input", lambda splits: _likeliest(splits, names))
        _only_once(name, values)
        values[name] = read_input(name, Path(path), folder)
    counts = {len(found) for found in sizes.values()} - {1}
    if len(counts) > 1:
        raise MeasurementError(
            "the shapes of a sweep do not go together",
            why=", ".join(f"'{name}' has {len(found)}" for name, found in sizes.items()),
            fix="give each input one shape, or as many as the others",
        )
    given = list(dict.fromkeys([*sizes, *values]))
    return tuple(
        Given(
            tuple(
                GivenInput(
                    name,
                    sizes[name][step % len(sizes[name])] if name in sizes else None,
                    values.get(name),
                )
                for name in given
            ),
            signature,
        )
        for step in range(next(iter(counts), 1))
    )


def _split(text: str, option: str, choose: Callable[[Splits], tuple[str, str]]) -> tuple[str, str]:
    """Name and value; a name may hold ``=``, and a file's name too."""
    places = [place for place, letter in enumerate(text) if letter == "=" and 0 < place < len(text) - 1]
    if not places:
        raise MeasurementError(
            f"{option} {text} gives no input", fix=f"write {option} NAME=..., with the input's name"
        )
    return choose([(text[:place], text[place + 1 :]) for place in places])


def _last(splits: Splits) -> tuple[str, str]:
    return splits[-1]


def _likeliest(splits: Splits, names: Collection[str]) -> tuple[str, str]:
    """The first whose name is known and whose file is there; else whose name is known, else whose file."""
    return max(splits, key=lambda split: (split[0] in names, Path(split[1]).is_file()))


def _only_once(name: str, values: dict[str, Fill | InputFile]) -> None:
    if name in values:
        raise MeasurementError(
            f"input '{name}' is filled twice", fix="give one --input or one --fill for each input"
        )


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, listed = _split(text, "--shape", _last) if not text.endswith("=") else (text[:-1], "")
    words = listed.split(",") if listed else []
    if not re.fullmatch(r"\d{1,10}(,\d{1,10})*|", listed, re.ASCII) or len(words) > MOST_RANK:
        raise MeasurementError(
            f"--shape {text} gives no shape",
            why=f"a shape is at most {MOST_RANK} sizes, each a whole number and none below 1",
            fix="write for example --shape x=1,3,48,320",
        )
    sizes = tuple(int(word) for word in words)
    if not all(1 <= size <= MOST_SIZE for size in sizes):
        raise MeasurementError(
            f"--shape {text} gives no shape",
            why=f"a size is from 1 to {MOST_SIZE:,}",
            fix="write for example --shape x=1,3,48,320",
        )
    return name, sizes


def _fill(text: str, rule: str) -> Fill:
    kind, _, rest = rule.partition(":")
    numbers = [_number(word) for word in rest.split(",")] if rest else []
    match kind, numbers:
        case (("zeros" | "ones" | "random"), []):
            return Fill(kind)
        case "range", [int() | float() as low, int() | float() as high] if low <= high:
            return Fill("range", low=low, high=high)
        case "value", [int() | float() as value]:
            return Fill("value", value=value)
    raise MeasurementError(f"--fill {text} says no values", why=f"values are {FILLS}")


def _number(word: str) -> float | None:
    """A finite number; a whole one as it is, since not every 64-bit integer is a float."""
    if re.fullmatch(r"-?\d{1,20}", word, re.ASCII):
        return int(word)
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
