"""Reading a bundle: it is accepted only exactly as it was written.

Digests find damage and edits. A bundle proves itself unchanged, not who made it; see ``signing``.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from devices.digests import file_digest
from devices.untrusted import file_bytes, json_from
from devices.words import cause_of
from pipeline.bundle.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    SIGNATURE_NAME,
    Manifest,
    manifest_bytes,
    manifest_digest,
)
from pipeline.errors import VerificationError

MOST_JSON_BYTES = 256 << 20
"""The longest manifest or measurement that is read: raw samples of a long one take a tenth of that."""


def read_bundle(folder: Path) -> Manifest:
    """Check every byte of a bundle against its manifest, and return the manifest.

    Raises:
        VerificationError: naming the file: it is missing, changed, not listed, a link, or outside the bundle;
            or the manifest has a newer schema.
    """
    if not folder.is_dir():
        raise VerificationError(
            f"there is no bundle {folder}",
            why="it is a file" if folder.exists() else "there is no such folder",
            fix="give the folder that holds manifest.json",
        )
    path = folder / MANIFEST_NAME
    if path.is_symlink() or not path.is_file():
        raise refused(folder, MANIFEST_NAME, "is missing, or not a plain file")
    try:
        raw = file_bytes(path, MOST_JSON_BYTES)
        document = json_from(raw)
        newest = document["schema_version"]
        if isinstance(newest, int) and newest > SCHEMA_VERSION:
            raise VerificationError(
                f"{path} has schema {newest}, this version reads up to {SCHEMA_VERSION}",
                why="the bundle was written by a newer version",
                fix="update lathe-deploy",
            )
        if isinstance(newest, int) and newest < SCHEMA_VERSION:
            raise VerificationError(
                f"{path} has schema {newest}, this version reads {SCHEMA_VERSION}",
                why="the bundle was written by an older version",
                fix="give the same lathe run or lathe compile again: what was measured and trained is kept",
            )
        changed = document["digest"] != manifest_digest(document) or manifest_bytes(document) != raw
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise refused(folder, MANIFEST_NAME, f"is not valid at {place}: {first['msg']}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise refused(folder, MANIFEST_NAME, f"cannot be read: {cause_of(error)}") from error
    if changed:
        raise refused(folder, MANIFEST_NAME, "was changed")
    _check_files(folder, manifest)
    for name, digest in manifest.files.items():
        if file_digest(folder / name) != digest:
            raise refused(folder, name, "was changed")
    return manifest


def listing(folder: Path) -> set[str]:
    """Relative POSIX paths of the files in a folder.

    Raises:
        VerificationError: there is a link or something else that is neither file nor folder.
    """
    names = set()
    for root, folders, files in os.walk(folder):
        for entry in (Path(root) / name for name in folders + files):
            name = entry.relative_to(folder).as_posix()
            if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                raise refused(folder, name, "is a link or a special file")
            if entry.is_file():
                names.add(name)
    return names


def refused(folder: Path, name: str, what: str) -> VerificationError:
    """The error for one file of a bundle that is not as it should be."""
    return VerificationError(
        f"the bundle {folder} does not verify: {name} {what}",
        why="a bundle is accepted only exactly as it was written",
        fix="take a fresh copy of the bundle, or write it again with lathe run or lathe compile",
    )


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Refuse what is not listed, what is missing, and what is not a plain file."""
    present = listing(folder)
    for name in sorted(present - {MANIFEST_NAME, SIGNATURE_NAME} - set(manifest.files)):
        raise refused(folder, name, "is not listed in the manifest")
    for name in sorted(set(manifest.files) - present):
        raise refused(folder, name, "is missing")
    for entry in manifest.targets:
        for name, digest in (
            (entry.artifact, entry.artifact_digest),
            (entry.portable, entry.portable_digest),
        ):
            if manifest.files.get(name, digest) != digest:
                raise refused(folder, name, "has another digest among the files than at its target")
    for name in sorted(manifest.used_files - set(manifest.files)):
        raise refused(folder, name, "is used by the manifest but has no digest in it")
