"""Options that commands of several rooms share, and options in groups."""

from __future__ import annotations

import functools
import inspect
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
