"""Work packages: exported models with a manifest, to be measured on a machine that cannot export.

A package is a folder of ``manifest.json`` and one file for each model; there is no code and no pickle in it.
Only files that stand directly in it, under the name and with the digest that the manifest says, are read.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from devices.digests import file_digest
from devices.inventory import runtime_of
from devices.measurement import MeasuringProtocol, Outcome, Reason
from devices.target import Target
from devices.trust import trusted_files
from devices.words import cause_of
from latency_db.errors import StoreError
from latency_db.store.keys import Workload
from latency_db.store.store import Store
from latency_db.tables.outcomes import Measurer, measured

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 64 << 20

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PackedWorkload(_Strict):
    """A workload and its file, or the reason why it could not be exported."""

    identity: Digest
    kind: Literal["block", "network"]
    description: Annotated[str, Field(max_length=10_000)]
    file: Annotated[str, Field(pattern=r"^[0-9a-f]{64}\.[a-z0-9]{1,16}$")] | None = None
    digest: Digest | None = None
    reason: Reason | None = None

    @model_validator(mode="after")
    def _file_or_reason(self) -> Self:
        if (self.file is None) == (self.reason is None) or (self.file is None) != (self.digest is None):
            raise ValueError("an item has a file with its digest, or a reason")
        return self

    @property
    def workload(self) -> Workload:
        """What the database knows it as."""
        return Workload(self.identity, self.kind, self.description)


class WorkPackage(_Strict):
    """What a package holds; ``runtime`` is the name of the one that loads its files."""

    format: Literal["lathe-table-package"] = "lathe-table-package"
    version: Literal[1] = 1
    runtime: str
    precision: str
    protocol: MeasuringProtocol
    items: tuple[PackedWorkload, ...]


def write_package(
    folder: Path,
    target: Target,
    protocol: MeasuringProtocol,
    workloads: Sequence[Workload],
    artifacts: Mapping[str, Path | Reason],
) -> WorkPackage:
    """Copy exported models into a new folder and write the manifest last, so that no half package is read.

    Args:
        folder: new, or empty.
        target: gives runtime and precision.
        protocol: how to measure.
        workloads: what to measure.
        artifacts: file, or reason why there is none, by workload identity.

    Raises:
        StoreError: the folder has something in it, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StoreError(
                f"{str(folder)!r} is not empty", fix="name a new folder for the package, or empty this one"
            )
        items = []
        for workload in {each.identity: each for each in workloads}.values():
            artifact = artifacts[workload.identity]
            if isinstance(artifact, Reason):
                items.append(PackedWorkload(**asdict(workload), reason=artifact))
                continue
            name = f"{workload.identity}{artifact.suffix}"
            shutil.copyfile(artifact, folder / name)
            items.append(PackedWorkload(**asdict(workload), file=name, digest=file_digest(folder / name)))
        manifest = WorkPackage(
            runtime=target.runtime, precision=target.precision, protocol=protocol, items=tuple(items)
        )
        unfinished = folder / f"{MANIFEST}.unfinished"
        unfinished.write_text(manifest.model_dump_json(indent=1))
        unfinished.replace(folder / MANIFEST)
    except OSError as error:
        raise StoreError(
            f"the package {str(folder)!r} cannot be written",
            why=cause_of(error),
            fix="choose a folder that can be written, on a disk with space",
        ) from error
    return manifest


def read_manifest(folder: Path) -> WorkPackage:
    """The manifest of a package, without looking at the models.

    Raises:
        StoreError: it is missing, too long, damaged, or of another version.
    """
    path = folder / MANIFEST
    try:
        _require_plain(path)
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise _unusable(folder, f"{MANIFEST} is longer than {MAX_MANIFEST_BYTES >> 20} MB")
        return WorkPackage.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _unusable(folder, f"{MANIFEST}: {where}: {first['msg']}") from error
    except OSError as error:
        raise _unusable(folder, cause_of(error)) from error


def measure_package(
    folder: Path,
    target: Target,
    *,
    store: Store,
    on_progress: Callable[[int, int], None] | None = None,
    on_state: Callable[[str], None] | None = None,
    measurer: Measurer | None = None,
    trusting: bool = False,
) -> dict[str, Outcome]:
    """Measure what a package holds and store it; what is stored already is not measured again.

    Files are checked against the manifest before anything is measured. ``trusting`` says that those which are
    programs may be loaded, see ``devices.trust``.

    Raises:
        StoreError: the package is damaged or for another runtime or precision, or the database fails.
        TargetError, MeasurementError: as of ``latency_db.tables.outcomes.measured``.
    """
    manifest = read_manifest(folder)
    if (manifest.runtime, manifest.precision) != (target.runtime, target.precision):
        raise StoreError(
            f"the package {str(folder)!r} cannot be measured on {target}",
            why=f"it was made for {manifest.runtime}:{manifest.precision}",
            fix=f"name a target such as {target.device}/{manifest.runtime}:{manifest.precision}",
        )
    runtime, artifacts = runtime_of(target), dict[str, Path | Reason]()
    with contextlib.ExitStack() as opened:
        for item in manifest.items:
            if item.reason is not None or item.file is None:
                artifacts[item.identity] = item.reason or Reason("export-failed", "")
                continue
            path = _checked(folder, item.file, item.digest)
            if not runtime.loads(path):
                raise _unusable(folder, f"{manifest.runtime} loads no {path.suffix or 'such'} files")
            files = opened.enter_context(trusted_files([path], trusting=trusting))
            artifacts[item.identity] = files[path]
        return measured(
            [item.workload for item in manifest.items],
            target,
            store=store,
            exporter=lambda batch: {workload.identity: artifacts[workload.identity] for workload in batch},
            protocol=manifest.protocol,
            on_progress=on_progress,
            on_state=on_state,
            measurer=measurer,
        )


def _checked(folder: Path, name: str, digest: str | None) -> Path:
    path = folder / name
    try:
        _require_plain(path)
        actual = file_digest(path)
    except OSError as error:
        raise _unusable(folder, cause_of(error)) from error
    if actual != digest:
        raise _unusable(folder, f"{name} is not the file that was packed")
    return path


def _require_plain(path: Path) -> None:
    """Refuse links, which may lead outside, and devices or pipes, which may never end."""
    if path.is_symlink() or not path.is_file():
        raise OSError(f"{path.name} is not a plain file")


def _unusable(folder: Path, why: str) -> StoreError:
    return StoreError(
        f"the work package {str(folder)!r} cannot be used",
        why=why,
        fix="copy the whole folder again, or make it anew with 'lathe table plan'",
    )
