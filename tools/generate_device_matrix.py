"""Writes docs/devices/matrix.md from what the runtimes declare; run it with .venv/bin/python."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from devices.errors import LatheError
from devices.inventory import HOST
from devices.runtimes import RUNTIMES, Runtime
from devices.target import PRECISIONS, Target
from pipeline.compile import default_variant
from pipeline.export.base import format_of

TARGET = Path(__file__).resolve().parent.parent / "docs" / "devices" / "matrix.md"

HEAD = """# What works on which device

This page is generated from what the runtimes declare by `tools/generate_device_matrix.py`. `lathe devices
check NAME` shows which of these runtimes a device has, and what they give there. A command that asks for
something that a target does not give says so before it begins.

The agent drives a runtime through its Python package: on this machine, on boards and servers. The makers'
tool drives it on devices without Python, which phones are, and elsewhere with `+native`. `+cores` and the
number of threads change nothing in these tables.

## What a target gives

"Inputs" are shapes and values that you give to `lathe profile`. "Outputs" are outputs for given inputs:
accuracy is taken from them. Where a target gives none, the accuracy of the same file is taken on this machine
by a runtime that loads it, and the report says so.

"""

NEUTRAL = ("cores", "native", "tf32")
"""Options that change nothing of what a target gives."""


def matrix() -> str:
    """The whole page."""
    notes: list[str] = []
    rows = [row for runtime in RUNTIMES for row in _rows(runtime, notes)]
    columns = ["target", "driven by", "files", *_names(), "students by `lathe run`"]
    table = _table(columns, rows)
    listed = "".join(f"{number}. {note}\n" for number, note in enumerate(notes, 1))
    precisions = _table(
        ["runtime", "driven by", *PRECISIONS],
        [
            [
                f"`{runtime.name}`",
                _driver(runtime),
                *("yes" if precision in runtime.precisions else "no" for precision in PRECISIONS),
            ]
            for runtime in RUNTIMES
        ],
    )
    return f"{HEAD}{table}\n{listed}\n## Precisions\n\n{precisions}"


def _rows(runtime: Runtime, notes: list[str]) -> Iterator[list[str]]:
    """A row for each group of options of a runtime that give the same."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for option in ("", *(name for name in runtime.options if name not in NEUTRAL)):
        target = _target(runtime, option)
        cells = [
            ("yes" if support else "no") + (f" ({_number(support.note, notes)})" if support.note else "")
            for _, support in runtime.capabilities(target)
        ]
        groups.setdefault((*cells, _students(target)), []).append(option)
    for cells, options in groups.items():
        names = ", ".join(f"`{runtime.name}{'+' if option else ''}{option}`" for option in options)
        yield [names, _driver(runtime), " ".join(f"`{suffix}`" for suffix in runtime.suffixes), *cells]


def _target(runtime: Runtime, option: str) -> Target:
    options = (*([option] if option else []), *([] if runtime.needs_python else ["native"]))
    return Target(HOST.name, runtime.name, runtime.precisions[0], options=options)


def _students(target: Target) -> str:
    """The precisions in which a run makes students for such a target."""
    found = []
    for precision in PRECISIONS:
        in_it = Target(target.device, target.runtime, precision, options=target.options)
        with contextlib.suppress(LatheError):
            format_of(in_it)
            default_variant(in_it)
            found.append(precision)
    return ", ".join(found) or "no"


def _driver(runtime: Runtime) -> str:
    tool = getattr(runtime, "tool", "trtexec")
    return "the agent" if runtime.needs_python else f"`{tool}`"


def _names() -> list[str]:
    runtime = RUNTIMES[0]
    return [name for name, _ in runtime.capabilities(_target(runtime, ""))]


def _number(note: str, notes: list[str]) -> int:
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    TARGET.write_text(matrix())
