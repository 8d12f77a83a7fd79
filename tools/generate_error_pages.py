"""Writes the error messages into docs/exit-codes from the code itself; run it with .venv/bin/python.

Each page of an exit code keeps what is written by hand; the messages between its marks are made anew. In a
message, an ellipsis stands for what differs from case to case.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "exit-codes"
PACKAGES = ("devices", "latency_db", "pipeline")
BEGIN, END = "<!-- messages -->\n", "<!-- end -->\n"


@dataclass(frozen=True, order=True)
class Message:
    """What an error says; ``fix`` is empty where it is made in another place."""

    what: str
    fix: str
    exit_code: int


@functools.cache
def messages() -> list[Message]:
    """Every error message whose text stands in the code, in alphabetical order."""
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    trees = [ast.parse(path.read_text("utf-8")) for path in paths]
    codes = _exit_codes(trees)
    found = {message for tree in trees for message in _raised(tree, codes)}
    return sorted(found, key=lambda message: (message.what.lstrip("'… ").lower(), message))


def _exit_codes(trees: list[ast.Module]) -> dict[str, int]:
    """Exit code of each kind of error: of its own, or that of the kind it is derived from."""
    kinds = {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def code(name: str) -> int | None:
        if name not in kinds:
            return None
        for line in kinds[name].body:
            target = line.target if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [None])[0]
            if (
                isinstance(target, ast.Name)
                and target.id == "exit_code"
                and isinstance(line.value, ast.Constant)
            ):
                return int(line.value.value)
        inherited = (code(base.id) for base in kinds[name].bases if isinstance(base, ast.Name))
        return next((each for each in inherited if each is not None), None)

    return {name: found for name in kinds if (found := code(name)) is not None}


def _raised(tree: ast.AST, codes: dict[str, int]) -> Iterator[Message]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in codes
            and node.args
        ):
            fixes = [_text(keyword.value) for keyword in node.keywords if keyword.arg == "fix"]
            what = _text(node.args[0])
            if what.strip("… "):
                yield Message(what, "".join(fixes), codes[node.func.id])


def _text(node: ast.expr) -> str:
    """The text of an expression as far as it stands in the code."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr():
            return "".join(map(_text, node.values))
        case ast.BinOp(op=ast.Add()):
            return _text(node.left) + _text(node.right)
    return "…"


def section(exit_code: int) -> str:
    """The generated part of a page."""
    rows = [
        f"| {_cell(message.what)} | {_cell(message.fix)} |\n"
        for message in messages()
        if message.exit_code == exit_code
    ]
    return "\n| message | what to do |\n| --- | --- |\n" + "".join(rows) + "\n" if rows else "\n"


def _cell(text: str) -> str:
    escaped = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return "" if not escaped.strip("… ") else escaped.replace("_", "\\_")


def pages() -> dict[Path, str]:
    """The pages with their generated parts as they should be."""
    made = {}
    for path in sorted(FOLDER.glob("[0-9]*.md")):
        before, begin, rest = path.read_text("utf-8").partition(BEGIN)
        if begin:
            made[path] = f"{before}{begin}{section(int(path.stem))}{END}{rest.partition(END)[2]}"
    return made


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")
