"""Digest of the code that builds a teacher, where it is not Lathe's own."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from devices.digests import file_digest, value_digest
from pipeline.teachers.config import TeacherConfig


def code_digest(config: TeacherConfig) -> str | None:
    """Of a factory's module, or of all Python files of the package that it is part of; of timm, its version.

    ``None`` for the kinds whose code is Lathe's own or lies in their file, and where there is no code to be
    found: importing it will say why.
    """
    if config.kind == "timm":
        try:
            return value_digest(["timm", version("timm")])
        except PackageNotFoundError:
            return None
    if config.factory is None:
        return None
    spec = _found(config.factory.partition(":")[0].partition(".")[0])
    if spec is None:
        return None
    roots = [Path(place) for place in spec.submodule_search_locations or ()]
    files = {path.relative_to(root).as_posix(): path for root in roots for path in root.rglob("*.py")}
    if not roots and spec.origin and Path(spec.origin).is_file():
        files = {Path(spec.origin).name: Path(spec.origin)}
    return value_digest({name: file_digest(path) for name, path in files.items()}) if files else None


def _found(package: str) -> ModuleSpec | None:
    try:
        return find_spec(package)
    except (ImportError, ValueError):
        return None
