"""Options that commands of several rooms share, and options in groups."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from typing import Annotated, Any, get_type_hints

import typer

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on standard output; an error is one too."),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        help="Latency database: a file or an SQLAlchemy URL. [default: $LATHE_DB, else in your data folder]",
    ),
]


_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
MOST_HOURS = 24


def seconds_of(text: str) -> float:
    """Read a time such as ``90s``, ``10m`` or ``1.5h``.

    Raises:
        typer.BadParameter: it has another form, is 0, or is longer than a day.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([smh])", text.strip())
    seconds = 0.0 if match is None else float(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= MOST_HOURS * 3600:
        raise typer.BadParameter(
            f"'{text}' is not a time: write 90s, 10m or 2h, above 0 and up to {MOST_HOURS} hours"
        )
    return seconds


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses of options: typer sees their fields, the command the dataclasses."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, type[Any]] = {
        each.name: each.annotation
        for each in parameters
        if isinstance(each.annotation, type) and is_dataclass(each.annotation)
    }

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    shown: list[Parameter] = []
    for each in parameters:
        shown += _expanded(groups[each.name]) if each.name in groups else [_keyword(each)]
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return run


def _expanded(kind: type[Any]) -> list[Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]


def _keyword(parameter: Parameter) -> Parameter:
    return parameter.replace(kind=Parameter.KEYWORD_ONLY)
