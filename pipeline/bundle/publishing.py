"""Where bundles are put: under a name by content, so that none takes another's place."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.bundle.reading import read_bundle
from pipeline.errors import VerificationError
from pipeline.work.disk import disk_errors, write_atomically


def publish(bundle: Path, name: str, bundles: Path) -> Path:
    """Copy a bundle to ``bundles/NAME-DIGEST``, and let ``bundles/NAME`` lead there.

    ``NAME`` is a relative link; where links cannot be made, ``NAME.latest`` holds the folder's name. A bundle
    that is there already is left alone; one of that name which was changed since is put aside first, as is
    a folder that stands where the link belongs.

    Args:
        bundle: a whole bundle.
        name: of the recipe.
        bundles: the folder of all bundles.

    Returns:
        The folder of this bundle.

    Raises:
        VerificationError: the bundle is not whole.
        WorkFolderError: the folder cannot be written.
    """
    place = bundles / f"{name}-{read_bundle(bundle).digest[:12]}"
    with disk_errors(place):
        bundles.mkdir(parents=True, exist_ok=True)
        if not _is_whole(place):
            _put_aside(place)
            partial = place.with_name(f".{place.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(bundle, partial)
            partial.replace(place)
        _link(bundles / name, place.name)
    return place


def _is_whole(place: Path) -> bool:
    try:
        read_bundle(place)
    except VerificationError:
        return False
    return True


def _put_aside(place: Path) -> None:
    if not place.exists():
        return
    number = 1
    while (aside := place.with_name(f"{place.name}.changed-{number}")).exists():
        number += 1
    place.replace(aside)


def _link(link: Path, to: str) -> None:
    if link.exists() and not link.is_symlink():
        _put_aside(link)
    new = link.with_name(f".{link.name}.link")
    new.unlink(missing_ok=True)
    try:
        new.symlink_to(to, target_is_directory=True)
    except OSError:  # a file system without links, or a user who may not make them
        write_atomically(link.with_name(f"{link.name}.latest"), f"{to}\n".encode())
        return
    new.replace(link)
