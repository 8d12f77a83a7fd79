"""What a gate asks for, and how it is written."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from pydantic import ByteSize, TypeAdapter, ValidationError

from pipeline.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """What each artifact must keep; ``None`` is not asked for.

    Attributes:
        max_latency_ms: of the artifact on its target.
        max_regression: by which share of the older artifact's latency the new one may be slower.
        min_accuracy: share of the bundle's test images.
        max_size_bytes: of the artifact's file.
    """

    max_latency_ms: float | None = None
    max_regression: float | None = None
    min_accuracy: float | None = None
    max_size_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no artifact could be held to.

        Raises:
            UsageError: a limit is negative, or no number.
        """
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                name = each.name.removesuffix("_bytes").replace("_", "-")
                raise UsageError(f"--{name} {value:g} is no limit", fix="write a number of zero or more")

    @property
    def any(self) -> bool:
        """Anything is asked for."""
        return any(getattr(self, each.name) is not None for each in fields(self))


def parse_share(text: str) -> float:
    """``3%`` and ``0.03`` as a share.

    Raises:
        UsageError: it is neither.
    """
    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if rest or not 0 <= value <= 1:
        raise UsageError(f"'{text}' is no share", fix="write for example 3% or 0.03")
    return value


def parse_size(text: str) -> int:
    """``300 kB``, ``1.5MiB`` and ``1500000`` in bytes.

    Raises:
        UsageError: it is none of them.
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(text.strip()))
    except ValidationError:
        raise UsageError(f"'{text}' is no size", fix="write for example 300kB, 1.5MB or 1500000") from None
