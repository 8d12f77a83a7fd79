"""The work folder: every stage's result, found again by the digest of everything that went into it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from devices.digests import file_digest
from devices.host import remove_abandoned
from pipeline.errors import WorkFolderError
from pipeline.work.canonical import StoredFile, canonical
from pipeline.work.disk import disk_errors, write_atomically
from pipeline.work.interrupted import begin, require_unchanged
from pipeline.work.stage import Stage, StageFolder

I = TypeVar("I")  # noqa: E741
S = TypeVar("S")
T = TypeVar("T")

_RESULT = "result.json"

_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


@dataclass(frozen=True)
class StageRecord:
    """What became of one stage in this run; ``seconds`` is the time it took now, small when ``cached``."""

    name: str
    digest: str
    cached: bool
    seconds: float


class WorkFolder:
    """A folder of finished stages, ``stages/NAME-DIGEST/``, used by one run at a time.

    A stage's folder belongs to the stage: what it leaves there when it is killed (a checkpoint, a journal) is
    there when it is called again with the same inputs. The stage is finished when ``result.json`` exists,
    which is written last and atomically, with the digests of all files beside it.

    Args:
        path: the folder; made if it is not there.
        anew: interrupted stages that were begun for another recipe are given up, see ``run``.
    """

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        self.path = path.absolute()
        self.records: list[StageRecord] = []
        self._asked: Mapping[str, Any] | None = None
        self._anew = anew

    @contextmanager
    def opened(self, asked: Mapping[str, Any] | None = None) -> Iterator[WorkFolder]:
        """Hold the folder for this process; disk errors inside become one clear error.

        Args:
            asked: what of the recipe stages that resume are begun for, as JSON, with its name.

        Raises:
            WorkFolderError: the folder cannot be made or written, is in use, or the disk is full.
        """
        with disk_errors(self.path):
            self._make()
            lock = FileLock(self.path / "lock", timeout=0)
            holder = self.path / "lock.holder"
            try:
                lock.acquire()
            except Timeout:
                who = holder.read_text().strip() if holder.exists() else "another process"
                raise WorkFolderError(
                    f"the work folder {self.path} is in use by {who}",
                    why="two runs on one work folder would write over each other",
                    fix="wait for the other run to end, or give this one a folder of its own with --work",
                ) from None
            try:
                remove_abandoned(self.path)
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                write_atomically(holder, f"process {os.getpid()} since {since}\n".encode())
                self._asked = asked
                yield self
            finally:
                lock.release()

    def _make(self) -> None:
        try:
            (self.path / "stages").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkFolderError(
                f"the work folder {self.path} cannot be made",
                why=str(error.strerror),
                fix="choose another folder with --work, or change permissions above it",
            ) from error

    def run(self, stage: Stage[I, S, T], given: I, services: S) -> T:
        """The result of a stage: read back if it was finished with an equal input, else made and kept.

        Args:
            stage: what to run.
            given: its input; with the versions that it names, all that decides the result.
            services: handed to the stage as they are.

        Raises:
            WorkFolderError: the stage ``resumes``, and one is interrupted that a recipe of the same name
                began which has changed since; the difference is named.
            TypeError: the input cannot be part of a key.
        """
        started = time.monotonic()
        digest, adapter = stage.key(given), _adapter(stage.result)
        folder = self._folder(stage, digest)
        result = self._read(folder, adapter)
        cached = result is not None
        if result is None:
            if stage.resumes and self._asked is not None:
                begin(folder, self._asked, stage.beginnings(given), anew=self._anew)
            folder.mkdir(parents=True, exist_ok=True)
            result = stage.function(given, StageFolder(folder), services)
            document = adapter.dump_python(result, mode="json")
            if stage.final(result):
                self._write(folder, canonical(given), document)
            # As the next run will read it: what follows must not depend on who made it.
            result = adapter.validate_json(json.dumps(document))
        if not (cached and any(record.digest == digest for record in self.records)):
            self.records.append(StageRecord(stage.name, digest, cached, round(time.monotonic() - started, 3)))
        return result

    def finished(self, stage: Stage[I, S, T], given: I) -> T | None:
        """The result of a stage that was finished with an equal input, as ``run`` would read it back.

        Raises:
            TypeError: the input cannot be part of a key.
        """
        return self._read(self._folder(stage, stage.key(given)), _adapter(stage.result))

    def forget(self, stage: Stage[I, S, T], given: I) -> None:
        """Make a stage run again the next time; its other files stay.

        Raises:
            TypeError: the input cannot be part of a key.
        """
        (self._folder(stage, stage.key(given)) / _RESULT).unlink(missing_ok=True)

    def require_unchanged(self, names: Collection[str]) -> None:
        """Refuse at once what ``run`` would refuse of stages of these names, which are going to be begun.

        Raises:
            WorkFolderError: as ``run`` does.
        """
        if self._asked is not None and not self._anew:
            require_unchanged(self.stages, names, self._asked)

    def find(self, file: StoredFile) -> Path:
        """Where a file lies that a stage made."""
        return self.stages / file.stage / file.path

    @property
    def stages(self) -> Path:
        """Where the stages' folders lie."""
        return self.path / "stages"

    def _folder(self, stage: Stage[Any, Any, Any], digest: str) -> Path:
        return self.stages / f"{stage.name}-{digest[:16]}"

    @staticmethod
    def _read(folder: Path, adapter: TypeAdapter[T]) -> T | None:
        """A finished result whose files are all as they were written, else None: then it is made again."""
        try:
            document = json.loads((folder / _RESULT).read_text())
            files: dict[str, str] = document["files"]
            if all(file_digest(folder / name) == digest for name, digest in files.items()):
                return adapter.validate_json(json.dumps(document["value"]))
        except (FileNotFoundError, KeyError, TypeError, ValidationError, json.JSONDecodeError):
            return None
        return None

    @staticmethod
    def _write(folder: Path, inputs: Any, value: Any) -> None:
        files = {
            str(path.relative_to(folder)): file_digest(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != _RESULT
        }
        document = {"inputs": inputs, "files": files, "value": value}
        write_atomically(folder / _RESULT, json.dumps(document, indent=1).encode())


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Each type's once: to make one of a nested type takes longer than to read a result."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
