"""One folder per class (torchvision's ImageFolder layout), with or without train and test folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from devices.words import count_of, listed
from pipeline.data.base import Decoded
from pipeline.data.images import IMAGE_SUFFIXES, WHITE, Colour, Size, decode_all
from pipeline.data.sources.base import Index, LabelledImages, Source, missing, not_used
from pipeline.errors import DataError

_NEVER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_SHOWN = 5
_TEST_NAMES = ("test", "val", "valid", "validation")
_LAYOUT = "a folder per class with image files, or train/CLASS/ and test/CLASS/"


def read(path: Path, *, image_size: Size | None, background: Colour = WHITE) -> Source:
    """Read ``path/train/CLASS/*`` and ``path/test/CLASS/*``, or ``path/CLASS/*`` without a test split.

    Without ``test``, a folder ``val``, ``valid`` or ``validation`` stands for it. Hidden files and folders
    never count, nor do those that systems leave behind (``__MACOSX``, ``Thumbs.db``). Other files that are no
    images by their suffix are left out, which the source's notes say, as do they of images in other folders
    beside ``train``.

    Raises:
        DataError: no such folder, no classes, no images.
    """
    if not path.is_dir():
        raise missing(path, _LAYOUT)
    split = {folder.name: folder for folder in _folders(path)}
    notes: tuple[str, ...] = ()
    if "train" in split and _folders(split["train"]):
        train = split["train"]
        test = next((split[name] for name in _TEST_NAMES if name in split), None)
        notes = _not_used(folder for folder in split.values() if folder not in (train, test))
    elif split.keys() <= {"train", *_TEST_NAMES} and any(map(_folders, split.values())):
        raise _no_train(path, split)
    else:
        train, test = path, None
    names = sorted({f.name for folder in (train, test) if folder is not None for f in _folders(folder)})
    if not names:
        raise missing(train, _LAYOUT)
    left_out: list[Path] = []
    learned = _labelled(train, names, image_size, background, left_out)
    held_out = None if test is None else _labelled(test, names, image_size, background, left_out)
    return Source(learned, held_out, tuple(names), (*_notes(left_out), *notes))


def _no_train(path: Path, split: Mapping[str, Path]) -> DataError:
    """A folder that has nothing but splits, none of which is there to learn from."""
    lies = "has no class folders" if "train" in split else "is missing"
    return DataError(
        f"'{path}' has no images to learn from",
        why=f"beside {listed(sorted(split.keys() - {'train'}))} its folder 'train' {lies}",
        fix=f"expected {_LAYOUT}",
    )


def _labelled(
    folder: Path, names: list[str], image_size: Size | None, background: Colour, left_out: list[Path]
) -> LabelledImages:
    files: list[str] = []  # Of a million images, paths would take a gigabyte.
    labels: list[int] = []
    for label, name in enumerate(names):
        candidates = [file for file in sorted((folder / name).rglob("*")) if _counts(file, folder)]
        found = [file for file in candidates if _is_image(file)]
        images = set(found)
        left_out += [file for file in candidates if file not in images and not file.is_dir()]
        files += map(str, found)
        labels += [label] * len(found)
    if not files:
        raise DataError(
            f"no images under '{folder}'",
            why=f"looked for {listed(sorted(IMAGE_SUFFIXES))} in {count_of(len(names), 'class folder')}",
            fix=f"expected {_LAYOUT}",
        )

    def decode(index: Index) -> Decoded:
        chosen = [files[row] for row in index]
        return decode_all([Path(file) for file in chosen], chosen, image_size, background)

    return LabelledImages(np.asarray(labels, np.int64), decode)


def _not_used(folders: Iterable[Path]) -> tuple[str, ...]:
    counts = {
        folder.name: sum(_is_image(file) for file in folder.rglob("*") if _counts(file, folder))
        for folder in folders
    }
    return tuple(not_used(name, count) for name, count in counts.items() if count)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()


def _notes(left_out: list[Path]) -> tuple[str, ...]:
    """What was left out, by kind, with the first few names."""
    kinds: dict[str, list[str]] = {}
    for file in left_out:
        kind = "broken link" if not file.exists() else file.suffix.lower() or "without suffix"
        kinds.setdefault(kind, []).append(file.name)
    return tuple(
        f"left out {count_of(len(files), 'file')} {kind}: "
        f"{', '.join(files[:_SHOWN])}{', ...' * (len(files) > _SHOWN)}"
        for kind, files in sorted(kinds.items())
    )


def _counts(path: Path, below: Path) -> bool:
    return not any(part.startswith(".") or part in _NEVER for part in path.relative_to(below).parts)


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and _counts(child, path))
