"""Paths written in a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidationInfo


def _from_base(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base", Path())
    return Path(base) / path.expanduser()


def _not_empty(path: object) -> object:
    if path == "":
        raise ValueError("the path is empty; name a file or folder, or write '.' for the recipe's own folder")
    return path


RecipePath = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_from_base)]
"""A path; a relative one is taken from ``base`` of the validation context, the recipe's folder."""
