"""Paths written in a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo


def _from_base(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base", Path())
    return Path(base) / path.expanduser()


RecipePath = Annotated[Path, AfterValidator(_from_base)]
"""A path; a relative one is taken from ``base`` of the validation context, the recipe's folder."""
