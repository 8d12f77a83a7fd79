"""Nothing is kept that only tests reach: what no product code uses is documented, or listed with a reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.places import ROOT

PACKAGES = ("devices", "latency_db", "pipeline")
OF_PYTHON = {"abstractmethod", "cached_property", "classmethod", "contextmanager", "property", "staticmethod"}
ALLOWED = {
    "expression": "NNI calls it",
    "find_class": "pickle calls it",
    "format_options": "click calls it",
    "hyperparameter_noises": "scikit-learn reads it",
    "hyperparameter_owns": "scikit-learn reads it",
    "hyperparameter_slopes": "scikit-learn reads it",
    "is_stationary": "scikit-learn calls it",
    "manifest_schema": "documents the manifest for programs of others",
    "readinto": "streams call it",
    "network_cost": "studies compare networks by it",
}
"""Names that nothing in the packages uses, and why they stay."""


def is_handed_on(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether a decorator, other than Python's own, gives it to somebody: a command, a validator."""
    return any(set(used(each)).isdisjoint(OF_PYTHON | {"dataclass"}) for each in node.decorator_list)


def defined(tree: ast.Module) -> Iterator[str]:
    """Functions, classes and methods of a module."""
    for node in tree.body:
        members = node.body if isinstance(node, ast.ClassDef) else []
        for each in (node, *members):
            if isinstance(each, ast.FunctionDef | ast.ClassDef) and not is_handed_on(each):
                yield each.name


def used(tree: ast.AST) -> Iterator[str]:
    """Every name that is read, called or given as a keyword, also inside of short texts."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.Constant(value=str(text)) if len(text) < 100:
                yield from re.findall(r"\w+", text)


def without_exports(tree: ast.Module) -> ast.Module:
    """A name in ``__all__`` is not used thereby."""
    kept = [node for node in tree.body if not (isinstance(node, ast.Assign) and "__all__" in set(used(node)))]
    return ast.Module(kept, [])


def test_what_only_tests_reach_is_documented_or_has_a_reason() -> None:
    trees = {path: ast.parse(path.read_text()) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    reached = {name for tree in trees.values() for name in used(without_exports(tree))}
    pages = [page.read_text("utf-8") for page in (ROOT / "docs").rglob("*.md")]
    code = [each for page in pages for each in re.findall(r"```.*?```|`[^`\n]+`", page, flags=re.DOTALL)]
    documented = {name for each in code for name in re.findall(r"\w+", each)}
    public = ROOT / "pipeline" / "public"
    names = {
        name: str(path.relative_to(ROOT))
        for path, tree in trees.items()
        if not path.is_relative_to(public)
        for name in defined(tree)
        if not name.startswith("__")
    }
    unreached = {name: path for name, path in names.items() if name not in reached | documented}
    assert not {name: path for name, path in unreached.items() if name not in ALLOWED}
    assert set(ALLOWED) <= names.keys(), "a name is gone: its reason may go as well"
