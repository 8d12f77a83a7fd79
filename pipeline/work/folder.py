"""The work folder: every stage's result, found again by the digest of everything that went into it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from devices.digests import file_digest, value_digest
from devices.host import remove_abandoned
from pipeline.errors import WorkFolderError
from pipeline.work.disk import disk_errors, write_atomically
from pipeline.work.interrupted import begin

T = TypeVar("T")

_RESULT = "result.json"


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
        anew: interrupted stages that were asked for other things are given up, see ``stage``.
    """

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        self.path = path.absolute()
        self.records: list[StageRecord] = []
        self._anew = anew

    @contextmanager
    def opened(self) -> Iterator[WorkFolder]:
        """Hold the folder for this process; disk errors inside become one clear error.

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
                holder.write_text(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
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

    def stage(
        self,
        name: str,
        inputs: Any,
        kind: type[T],
        compute: Callable[[Path], T],
        *,
        asked: Mapping[str, Any] | None = None,
        final: Callable[[T], bool] = lambda result: True,
    ) -> T:
        """The result of a stage: read back if it was finished with the same inputs, else computed and kept.

        Args:
            name: the stage's name, part of its folder's name.
            inputs: JSON of everything that decides the result.
            kind: type of the result, a frozen dataclass or pydantic model.
            compute: does the work; gets the stage's folder, which may hold what a killed run left.
            asked: for a stage whose beginnings are worth keeping, the recipe as JSON. It is not begun while
                one of another recipe of the same name is interrupted, unless ``anew``.
            final: whether a result is kept; one that is not is computed again by the next run.

        Raises:
            WorkFolderError: such a stage is interrupted; the difference is named.
        """
        started = time.monotonic()
        digest = value_digest([name, inputs])
        folder = self.path / "stages" / f"{name}-{digest[:16]}"
        adapter = TypeAdapter(kind)
        result = self._read(folder, adapter)
        cached = result is not None
        if result is None:
            if asked is not None:
                begin(folder, asked, anew=self._anew)
            folder.mkdir(parents=True, exist_ok=True)
            result = compute(folder)
            if final(result):
                self._write(folder, inputs, adapter, result)
        self.records.append(StageRecord(name, digest, cached, round(time.monotonic() - started, 3)))
        return result

    def folder_of(self, name: str) -> Path:
        """Where the stage that last finished under this name keeps its files.

        Raises:
            KeyError: no stage of that name has finished in this run.
        """
        for record in reversed(self.records):
            if record.name == name:
                return self.path / "stages" / f"{name}-{record.digest[:16]}"
        raise KeyError(name)

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
    def _write(folder: Path, inputs: Any, adapter: TypeAdapter[T], result: T) -> None:
        files = {
            str(path.relative_to(folder)): file_digest(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != _RESULT
        }
        document = {"inputs": inputs, "files": files, "value": adapter.dump_python(result, mode="json")}
        write_atomically(folder / _RESULT, json.dumps(document, indent=1).encode())
