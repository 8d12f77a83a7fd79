"""Sizes of images written in a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PlainValidator

_LEAST, _MOST = 4, 4096


def _checked(value: Any) -> int | tuple[int, int]:
    if _is_side(value):
        return int(value)
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_side, value)):
        return int(value[0]), int(value[1])
    raise ValueError(f"write a side from {_LEAST} to {_MOST} pixels, or [height, width]")


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and _LEAST <= value <= _MOST


_Side = Annotated[int, Field(ge=_LEAST, le=_MOST)]
ImageSize = Annotated[
    int | tuple[int, int], PlainValidator(_checked, json_schema_input_type=_Side | tuple[_Side, _Side])
]
"""Side of a square, or height and width, each 4 to 4096."""
