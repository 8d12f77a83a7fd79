"""Plain help, with options in groups and examples at the end; importing rich would nearly double its time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

Function = TypeVar("Function", bound=Callable[..., None])


class Commands(typer.Typer):
    """A group of commands; without one of them it prints its help and ends with 2."""

    def __init__(self, summary: str, *, name: str | None = None) -> None:
        super().__init__(
            name=name,
            help=summary,
            cls=_Group,
            add_completion=False,
            pretty_exceptions_enable=False,
            rich_markup_mode=None,
        )

    def add(self, name: str, *examples: str) -> Callable[[Function], Function]:
        """Decorate a function as a command.

        Args:
            name: of the command.
            examples: whole command lines, shown after the options.
        """
        # A paragraph that begins with a backspace is not wrapped.
        epilog = "\n".join(["\b", "Examples:", *(f"  {each}" for each in examples)]) if examples else None
        return self.command(name, cls=_Command, epilog=epilog)


class _Command(TyperCommand):
    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments first, then the options in the groups that their ``rich_help_panel`` names."""
        groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                groups[getattr(parameter, "rich_help_panel", None) or usual].append(record)
        # Options that are of no group are the common ones; they come last.
        groups["Options"] = groups.pop("Options", [])
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class _Group(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(2)
        return super().parse_args(ctx, args)
