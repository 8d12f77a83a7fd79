"""Files that hold one model: JSON that says what it is, written atomically and read with care."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from devices.untrusted import file_bytes, json_from
from devices.words import cause_of
from latency_db.errors import EstimateError
from pipeline.work.disk import disk_errors, write_atomically

T = TypeVar("T")

MAX_BYTES = 256 << 20

_SPACE = TypeAdapter(dict[str, object])
_BLOCKS = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class Content(Generic[T]):
    """What is in a file: a model, the description of its space, and what the blocks are, by identity."""

    model: T
    space: dict[str, object]
    blocks: dict[str, str]


@dataclass(frozen=True)
class Document(Generic[T]):
    """One kind of file, which no other kind is taken for.

    Attributes:
        format: its name, in the file.
        version: the only one that is read.
        what: for people, as ``a latency table``.
        written_by: the command.
        adapter: of the model inside.
    """

    format: str
    version: int
    what: str
    written_by: str
    adapter: TypeAdapter[T]

    def write(self, path: Path, content: Content[T]) -> None:
        """Write a file.

        Raises:
            WorkFolderError: it cannot be written.
        """
        document = {
            "format": self.format,
            "version": self.version,
            "space": content.space,
            "blocks": content.blocks,
            "model": self.adapter.dump_python(content.model, mode="json"),
        }
        with disk_errors(path):
            write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())

    def read(self, path: Path) -> Content[T]:
        """What is in a file.

        Raises:
            EstimateError: the file is missing, too long, damaged, of another version, or something else.
        """
        try:
            document = json_from(file_bytes(path, MAX_BYTES))
            if not isinstance(document, dict) or document.get("format") != self.format:
                raise self._unreadable(path, f'{self.what} is a JSON object with "format": "{self.format}"')
            if document.get("version") != self.version:
                why = f"it has version {document.get('version')}, this Lathe reads {self.version}"
                raise self._unreadable(path, why)
            return Content(
                self.adapter.validate_python(document.get("model")),
                _SPACE.validate_python(document.get("space")),
                _BLOCKS.validate_python(document.get("blocks")),
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise self._unreadable(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except (OSError, ValueError) as error:
            raise self._unreadable(path, cause_of(error)) from error

    def _unreadable(self, path: Path, why: str) -> EstimateError:
        return EstimateError(
            f"{str(path)!r} cannot be read as {self.what}",
            why=why,
            fix=f"name a file that '{self.written_by}' wrote",
        )
