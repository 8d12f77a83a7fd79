"""Result files: what was measured, with all raw samples, in one JSON file that later versions still read.

History of the format:

- 1: ``format``, ``version``, ``lathe`` (its version), and ``outcomes``, a list of ``model`` and ``outcome``.
  An outcome is a measurement by version 1 of the protocol, where a launch has its phases, samples, peak
  memory and conditions; or a failure.
- 2: ``written_at``, and instead of outcomes ``entries`` of ``models`` and ``result``. A result, told by its
  ``kind``, is also an operation profile, a sustained run or a comparison. A launch may have processor usage,
  canary, placement, copies, inputs and a summary, and may be void; conditions know phones and GPUs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from devices.errors import MeasurementError
from devices.measurement.measurement import Measurement, MeasurementFailure
from devices.measuring.comparison import Comparison
from devices.requests.operations import OperationProfile
from devices.requests.sustained import SustainedRun
from devices.untrusted import json_from
from devices.words import cause_of

__all__ = ["FORMAT", "MAX_BYTES", "VERSION", "Entry", "Result", "ResultFile", "Results", "read_results"]

FORMAT = "lathe-results"
VERSION = 2
MAX_BYTES = 2 << 30
"""A longer file is not read: an hour of a model of 50 us takes about a quarter of it."""

Result = Measurement | MeasurementFailure | OperationProfile | SustainedRun | Comparison


@dataclass(frozen=True)
class Entry:
    """One result and the files it is about, as they were named: two of a comparison, else one."""

    models: tuple[str, ...]
    result: Annotated[Result, Field(discriminator="kind")]


@dataclass(frozen=True)
class Results:
    """What a result file holds.

    Attributes:
        version: of the format that the file has.
        lathe: version of Lathe that wrote it.
        written_at: UTC; empty in files of version 1.
    """

    version: int
    lathe: str
    entries: tuple[Entry, ...]
    written_at: str = field(default="")


_ENTRIES = TypeAdapter(tuple[Entry, ...])
_ENTRY = TypeAdapter(Entry)


def read_results(path: Path) -> Results:
    """Read a result file of this or any older version.

    Raises:
        MeasurementError: it is missing, too long, damaged, of a newer version, or something else.
    """
    document = _document(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise MeasurementError(
            f"{str(path)!r} is not a result file",
            why=f'a result file is a JSON object with "format": "{FORMAT}"',
            fix="name a file that was written with --save",
        )
    found = document.get("version")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise _damaged(path, f"it has the version {found!r}")
    if found > VERSION:
        raise MeasurementError(
            f"{str(path)!r} has version {found} of the format of result files",
            why=f"this Lathe reads versions up to {VERSION}; it was written by Lathe {document.get('lathe')}",
            fix="update Lathe",
        )
    try:
        rows = _rows_of_version_1(document) if found == 1 else document["entries"]
        entries = _ENTRIES.validate_python(rows)
        for entry in entries:
            _require_figures(entry.result)
        return Results(found, str(document["lathe"]), entries, str(document.get("written_at", "")))
    except (ValidationError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise _damaged(path, cause_of(error)) from error


class ResultFile:
    """A result file that grows: each addition is on disk, and the file whole, when ``add`` returns.

    There is no file before the first addition, so that a killed process leaves none without results.
    """

    def __init__(self, path: Path) -> None:
        """Begin a new file.

        Raises:
            MeasurementError: there is a file already, which is never overwritten, or it cannot be written.
        """
        self.path = path
        self._entries: list[bytes] = []
        with _write_errors(path):
            path.open("x").close()
            path.unlink()

    def add(self, models: Sequence[str], result: Result) -> None:
        """Add a result; names that are not Unicode are kept with their odd bytes escaped.

        Raises:
            MeasurementError: the file cannot be written; what it held before is kept.
        """
        names = tuple(name.encode("utf-8", "backslashreplace").decode() for name in models)
        entries = [*self._entries, _ENTRY.dump_json(Entry(names, result))]
        head = {
            "format": FORMAT,
            "version": VERSION,
            "lathe": _lathe_version(),
            "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        text = json.dumps(head).encode().removesuffix(b"}")
        content = text + b', "entries": [\n' + b",\n".join(entries) + b"\n]}\n"
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        with _write_errors(self.path):
            try:
                with partial.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                if not self._entries and self.path.exists():
                    raise FileExistsError
                partial.replace(self.path)
            finally:
                partial.unlink(missing_ok=True)
        self._entries = entries


def _document(path: Path) -> Any:
    try:
        if not path.is_file():
            raise MeasurementError(f"there is no result file {str(path)!r}")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise MeasurementError(
                f"{str(path)!r} is too long for a result file",
                why=f"it has {size} bytes, and {MAX_BYTES} are read at most",
            )
        return json_from(path.read_bytes())
    except OSError as error:
        raise MeasurementError(f"{str(path)!r} cannot be read", why=cause_of(error)) from error
    except ValueError as error:
        raise _damaged(path, f"it is not JSON: {error}") from error


def _rows_of_version_1(document: dict[str, Any]) -> list[Any]:
    """Entries of version 2 from a document of version 1."""
    return [{"models": [row["model"]], "result": row["outcome"]} for row in document["outcomes"]]


def _require_figures(result: Result) -> None:
    """An error where the figures that every result of its kind has cannot be had."""
    match result:
        case Measurement():
            _ = result.latency
        case SustainedRun():
            _ = result.ratio, result.elapsed_ns
        case OperationProfile():
            _ = result.operations[0]
        case Comparison():
            _require_figures(result.first)
            _require_figures(result.second)
            _ = result.ratio


def _damaged(path: Path, why: str) -> MeasurementError:
    return MeasurementError(
        f"the result file {str(path)!r} is damaged",
        why=why if len(why) <= 500 else f"{why[:500]} ...",
        fix="restore it from a copy, or measure again",
    )


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise MeasurementError(
            f"the result file {str(path)!r} exists already",
            why="what was measured is never overwritten",
            fix="choose another name for --save, or remove that file",
        ) from error
    except OSError as error:
        raise MeasurementError(
            f"the result file {str(path)!r} cannot be written",
            why=error.strerror or cause_of(error),
            fix="choose another place for --save",
        ) from error


def _lathe_version() -> str:
    try:
        return version("lathe-deploy")
    except PackageNotFoundError:
        return "unknown"
