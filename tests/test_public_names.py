"""What a top-level package takes of another stands in ``__all__`` of the room that it is taken from."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.places import ROOT

PACKAGES = ("devices", "latency_db", "pipeline")


def imports(package: str) -> Iterator[tuple[Path, str, str]]:
    """File, module and name of every import from another of the packages."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                owner = node.module.split(".")[0]
                if owner in PACKAGES and owner != package:
                    yield from ((path.relative_to(ROOT), node.module, alias.name) for alias in node.names)
            if isinstance(node, ast.Import):
                for alias in node.names:
                    owner = alias.name.split(".")[0]
                    assert owner not in PACKAGES or owner == package, f"{path} imports {alias.name} whole"


@pytest.mark.parametrize("package", ["latency_db", "pipeline"])
def test_names_of_other_packages_are_public(package: str) -> None:
    hidden = [
        f"{path}: {module}.{name}" for path, module, name in imports(package) if not is_public(module, name)
    ]
    assert not hidden


def is_public(module: str, name: str) -> bool:
    """A room as a whole, or a name that a room exports."""
    if module in PACKAGES:
        return find_spec(f"{module}.{name}") is not None
    return module.count(".") == 1 and name in importlib.import_module(module).__all__
