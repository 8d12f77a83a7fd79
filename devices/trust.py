"""Files that name programs, or are programs: used only after the user has said once that they may be.

What is trusted is a path with a digest, kept in the user's configuration folder, so that a file that changes
is not trusted any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from filelock import FileLock
from platformdirs import user_config_path

from devices.digests import file_digest
from devices.errors import MeasurementError, TargetError
from devices.host import temporary_folder
from devices.untrusted import file_bytes, json_from, open_zip
from devices.words import cause_of

__all__ = ["is_trusted", "trust", "trusted_files"]

ENVIRONMENT = "LATHE_TRUSTED"
"""Paths of files that are trusted whatever is in them, separated as in PATH: for machines of continuous
integration, whose user's folder is new each time."""

PROGRAMS = (".pt2", ".engine", ".plan")
"""Suffixes of models that are programs: torch evaluates the expressions for shapes in its files, and loads
the library in a compiled package; TensorRT's engines hold code for the GPU."""

_MOST_BYTES = 1 << 20


def list_file() -> Path:
    """Where the user's folder lists trusted files."""
    return user_config_path("lathe", appauthor=False) / "trusted.json"


def is_trusted(path: Path, content: bytes) -> bool:
    """Whether the user trusts a file with this content in this place.

    Raises:
        TargetError: the list of trusted files cannot be read.
    """
    where = str(path.absolute())
    return where in _named() or [where, hashlib.sha256(content).hexdigest()] in _listed()


def trust(path: Path, digest: str) -> None:
    """Remember that the user trusts a file with this digest in this place, and with no other there.

    Raises:
        TargetError: the list of trusted files cannot be read or written.
    """
    where, final = str(path.absolute()), list_file()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        # Or of two processes that add to the list at once, one would undo what the other did.
        with FileLock(final.with_name(f".{final.name}.lock")):
            entries = [entry for entry in _listed() if entry[0] != where]
            _write(final, [*entries, [where, digest]])
    except OSError as error:
        raise TargetError(
            f"the list of trusted files {final} cannot be written",
            why=error.strerror or str(error),
            fix=f"make its folder writable, or name what you trust in the environment variable {ENVIRONMENT}",
        ) from error


@contextlib.contextmanager
def trusted_files(models: Iterable[Path], *, trusting: bool = False) -> Iterator[dict[Path, Path]]:
    """By model, the file to run: of a program a private copy, so that what was looked at is what runs.

    Programs that the user does not trust, wherever they lie, are refused, and so are archives that would be
    unpacked outside of a folder, trusted or not.

    Args:
        models: files.
        trusting: the user says now that they are trusted, which is remembered.

    Raises:
        MeasurementError: naming the first that is not trusted, or such an archive.
        TargetError: the list of trusted files cannot be read or written.
        TemporaryFolderError: there is no room for the copies.
    """
    files = {path: path for path in models}
    programs = [path for path in files if path.suffix.lower() in PROGRAMS and path.is_file()]
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(temporary_folder("trusted")) if programs else Path()
        for number, path in enumerate(programs):
            files[path] = folder / str(number) / path.name
            files[path].parent.mkdir()
            shutil.copyfile(path, files[path])
            _refuse_hostile(path, files[path])
            _require_trusted(path, file_digest(files[path]), trusting=trusting)
        yield files


def _require_trusted(path: Path, digest: str, *, trusting: bool) -> None:
    if str(path.absolute()) in _named() or digest in [entry[1] for entry in _listed()]:
        return
    if not trusting:
        raise MeasurementError(
            f"{str(path)!r} is a program, and you have not said that you trust it",
            why=f"a {path.suffix} file can run any code when its runtime loads it",
            fix="where you know who made it, run it once by 'lathe profile' with --trust, which is kept "
            f"for this content, or name it in the environment variable {ENVIRONMENT}",
        )
    trust(path, digest)


def _refuse_hostile(path: Path, copy: Path) -> None:
    """Refuse an archive that its runtime would unpack outside of a folder, or until the disk is full.

    AOTInductor's packages are unpacked before they run. What is no archive is left to the runtime.
    """
    if not zipfile.is_zipfile(copy):
        return
    try:
        with open_zip(copy) as archive:
            outside = [member.filename for member in archive.infolist() if _leaves(member)]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        why = cause_of(error)
    else:
        why = f"its member {outside[0]!r} would be written outside of the archive's folder" if outside else ""
    if why:
        raise MeasurementError(
            f"{str(path)!r} is an archive that is not opened",
            why=why,
            fix="do not trust it; have it written again by torch.export.save or AOTInductor",
        )


def _leaves(member: zipfile.ZipInfo) -> bool:
    # By its name as it stands in the file: zipfile itself cuts some.
    parts = PurePosixPath(member.orig_filename.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or stat.S_ISLNK(member.external_attr >> 16)


def _named() -> list[str]:
    paths = os.environ.get(ENVIRONMENT, "").split(os.pathsep)
    return [str(Path(each).absolute()) for each in paths if each]


def _listed() -> list[list[str]]:
    """Path and digest of every trusted file."""
    try:
        document = json_from(file_bytes(list_file(), _MOST_BYTES))
        return [[str(entry["path"]), str(entry["digest"])] for entry in document["trusted"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise TargetError(
            f"the list of trusted files {list_file()} cannot be read",
            why=str(error),
            fix="remove it, and say again what you trust",
        ) from error


def _write(final: Path, entries: list[list[str]]) -> None:
    document = {"trusted": [{"path": path, "digest": digest} for path, digest in entries]}
    descriptor, partial = tempfile.mkstemp(prefix=f".{final.name}.", dir=final.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(document, indent=1) + "\n")
            stream.flush()
            os.fsync(descriptor)
        Path(partial).replace(final)
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(partial).unlink()
