"""What a stage is: a function from a typed value to a typed value, and a folder for its files."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

from devices.digests import file_digest, value_digest
from pipeline.work.canonical import StoredFile, canonical

I = TypeVar("I")  # noqa: E741
S = TypeVar("S")
R = TypeVar("R")

_OWN_PACKAGE = "lathe-deploy"


@dataclass(frozen=True)
class StageFolder:
    """Where a stage keeps its files, and finds those of others.

    Attributes:
        path: the stage's own folder; what it left there when it was killed is there when it runs again.
    """

    path: Path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def stored(self, name: str) -> StoredFile:
        """A file of this stage as a value, which other stages may be given.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return StoredFile(self.path.name, name, file_digest(self.path / name))

    def find(self, file: StoredFile) -> Path:
        """Where a file lies that a stage of the same work folder made."""
        return self.path.parent / file.stage / file.path


@dataclass(frozen=True)
class Stage(Generic[I, S, R]):
    """A stage, made by ``stage``.

    Attributes:
        name: the first part of its folders' names.
        function: of the input, the folder, and services that never decide a result.
        result: type of the result.
        packages: installed packages whose versions decide the result.
        resumes: its beginnings are worth keeping: it is not begun beside an interrupted one of a recipe that
            changed since.
        final: whether a result is kept; one that is not is made again by the next run.
        tell: what there is to say of a result, a line each.
        begun: of an input, what decides the beginnings: all but what says how long to go on. They are taken
            over by an input that differs in the rest alone.
    """

    name: str
    function: Callable[[I, StageFolder, S], R]
    result: type[R]
    packages: tuple[str, ...]
    resumes: bool
    final: Callable[[R], bool]
    tell: Callable[[I, R], Sequence[str]]
    begun: Callable[[I], Any]

    def key(self, given: I) -> str:
        """Digest of everything that decides the result: name, versions, and the whole input.

        Raises:
            TypeError: the input holds something that has no canonical form.
        """
        return self._digest(given)

    def beginnings(self, given: I) -> str:
        """Digest of everything that decides what the stage leaves in its folder while it works.

        Raises:
            TypeError: as ``key`` does.
        """
        return self._digest(self.begun(given))

    def _digest(self, value: Any) -> str:
        return value_digest([self.name, installed((_OWN_PACKAGE, *self.packages)), canonical(value)])


def stage(
    name: str,
    *,
    packages: Sequence[str] = (),
    resumes: bool = False,
    final: Callable[[Any], bool] = lambda result: True,
    tell: Callable[[Any, Any], Sequence[str]] = lambda given, result: (),
    begun: Callable[[Any], Any] = lambda given: given,
) -> Callable[[Callable[[I, StageFolder, S], R]], Stage[I, S, R]]:
    """Declare a function of a module as a stage; the arguments are those of ``Stage``.

    Raises:
        TypeError: the function is not of a module: it could read what is not in its input.
    """

    def declare(function: Callable[[I, StageFolder, S], R]) -> Stage[I, S, R]:
        # A closure, a method or a partial holds values that no key would name.
        name_of = getattr(function, "__name__", "")
        if getattr(function, "__qualname__", "") != name_of or not name_of.isidentifier():
            raise TypeError(f"the stage '{name}' is not a function of a module")
        result: type[R] = typing.get_type_hints(function)["return"]
        return Stage(name, function, result, tuple(packages), resumes, final, tell, begun)

    return declare


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed; a build suffix (``+cpu``) is part of the version."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
