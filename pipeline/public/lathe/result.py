"""What all results have in common: a text, a table for notebooks, and a JSON document."""

from __future__ import annotations

import html
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.progress import Reporter

Rows = Sequence[tuple[str, ...]]


@dataclass(frozen=True, repr=False)
class Result(ABC):
    """A result: ``repr`` and notebooks show it in full, ``to_json`` gives every figure that was found."""

    _document: Mapping[str, Any] = field(compare=False, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """The document that the command of the same name prints with ``--json``."""
        document: dict[str, Any] = json.loads(json.dumps(self._document))
        return document

    @abstractmethod
    def _title(self) -> str:
        """One line."""

    @abstractmethod
    def _rows(self) -> Rows:
        """The cells below the title, as many in each row."""

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows
        )
        return "\n".join([self._title(), *(f"  {line}".rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self._rows()
        )
        return f"<p>{html.escape(self._title())}</p><table>{rows}</table>"


def reporter(progress: bool) -> Reporter:
    """Progress on standard error, or none."""
    from pipeline.progress import ConsoleReporter, SilentReporter

    return ConsoleReporter() if progress else SilentReporter()
