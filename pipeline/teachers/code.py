"""Digest of the code that builds a teacher, where it is not Lathe's own."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from devices.digests import file_digest, value_digest

if TYPE_CHECKING:
    from pipeline.teachers.config import TeacherConfig

_OWN = {"devices", "latency_db", "lathe", "pipeline"}
"""Lathe's packages, whose version is in every key."""
_PACKAGES = {"timm": "timm", "torchvision": "torchvision", "huggingface": "transformers"}


def code_digest(config: TeacherConfig) -> str | None:
    """Of the code of a factory, see ``factory_digest``; of packages with networks the version counts.

    ``None`` for code that is Lathe's own or lies in the teacher's file.
    """
    package = _PACKAGES.get(config.kind)
    if package is not None:
        try:
            return value_digest([package, version(package)])
        except PackageNotFoundError:
            return None
    return None if config.factory is None else factory_digest(config.factory)


def factory_digest(factory: str) -> str | None:
    """Of a factory's module or whole package, and of what these import from the folder in which they lie.

    What they import from elsewhere does not count, nor do modules that are imported by a computed name.
    ``None`` for code that is Lathe's own, and where there is no code to be found: importing it will say why.

    Args:
        factory: ``package.module:function``.
    """
    name = factory.partition(":")[0].partition(".")[0]
    files = {
        path.relative_to(folder).as_posix(): path
        for folder in _folders_of(name)
        for path in _sources(name, folder)
    }
    return value_digest({name: file_digest(path) for name, path in files.items()}) if files else None


def _folders_of(name: str) -> list[Path]:
    """Where a module or package lies; a namespace package may be in several folders."""
    spec = _found(name)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place).parent for place in spec.submodule_search_locations]
    return [Path(spec.origin).parent] if spec.origin and Path(spec.origin).is_file() else []


def _sources(name: str, folder: Path) -> list[Path]:
    """Files of a module or package, and of all that they import from the same folder."""
    installed = {Path(place).resolve() for place in sysconfig.get_paths().values()}
    found: list[Path] = []
    waiting, seen = [name], set(_OWN)
    while waiting:
        package = waiting.pop()
        if package in seen:
            continue
        seen.add(package)
        files = [folder / f"{package}.py", *sorted((folder / package).rglob("*.py"))]
        files = [path for path in files if path.is_file()]
        found += files
        # Among installed packages it would be half of the environment.
        if folder.resolve() not in installed:
            waiting += [each for path in files for each in _imported(path)]
    return found


def _imported(path: Path) -> Iterator[str]:
    """The first names of all that a file imports; those of a package's own modules are not needed."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def _found(package: str) -> ModuleSpec | None:
    try:
        return find_spec(package)
    except (ImportError, ValueError):
        return None
