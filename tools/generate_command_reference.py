"""Writes docs/reference/commands.md from the command line itself; run it with .venv/bin/python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from pipeline.cli.main import app

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference" / "commands.md"

HEAD = """# Commands

This page is generated from the command line by `tools/generate_command_reference.py`.

`tools/lathe` takes the same arguments as `lathe`, and sets up its own environment first. Results go to
standard output, everything else to standard error. See also [JSON output](json-output.md) and
[exit codes](../exit-codes/index.md).
"""


def reference() -> str:
    """The whole page."""
    root = typer.main.get_command(app)
    return HEAD + "".join(_sections(root, "lathe", None))


def _sections(command: Any, name: str, parent: typer.Context | None) -> list[str]:
    context = typer.Context(command, info_name=name.rpartition(" ")[2], parent=parent)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"\n## {name}\n\n```console\n$ {usage}\n```\n\n{(command.help or '').strip()}\n"]
    rows = [row for parameter in command.get_params(context) if (row := _row(parameter, context))]
    if rows:
        parts.append("\n| argument or option | meaning |\n| --- | --- |\n" + "".join(rows))
    if command.epilog:
        examples = [line.strip() for line in command.epilog.splitlines()[2:]]
        parts.append("\n```console\n" + "".join(f"$ {line}\n" for line in examples) + "```\n")
    if isinstance(command, TyperGroup):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                parts += _sections(found, f"{name} {child}", context)
    return parts


def _row(parameter: Any, context: typer.Context) -> str:
    record = parameter.get_help_record(context)
    if record is None:
        return ""
    names, meaning = (" ".join(text.split()).replace("|", "\\|") for text in record)
    return f"| `{names}` | {meaning} |\n"


if __name__ == "__main__":
    TARGET.write_text(reference())
