"""Images as rows of a file, decoded chunk by chunk: memory does not grow with their number."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from pipeline.data.images import Size, height_and_width, resize_all, with_channels
from pipeline.data.sources.base import Index, LabelledImages
from pipeline.errors import DataError, WorkFolderError
from pipeline.memory import gigabytes

_CHUNK_BYTES = 32_000_000
_FEWEST_ROWS, _MOST_ROWS = 16, 4096

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]
"""Height, width, channels."""

Advance = Callable[[int], None]
"""Called with how many more images were read."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """The images of a split in a file.

    Attributes:
        path: bytes of the images one after the other.
        shape: of each.
        rows: ``(n,)``, which of the source's images are in it.
        broken: the others by name, each with the reason why it cannot be decoded.
    """

    path: Path
    shape: Shape
    rows: Index
    broken: tuple[str, ...] = ()

    @property
    def images(self) -> Pixels:
        """``(n, H, W, C)``, read from the file where they are looked at."""
        return mapped(self.path, len(self.rows), self.shape)

    def keep(self, chosen: Index) -> StoredImages:
        """Only these of the rows, in a file that takes the place of this one."""
        images, partial = self.images, self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as stream:
            for index in np.array_split(chosen, images.nbytes // _CHUNK_BYTES + 1):
                stream.write(images[index].data)
        partial.replace(self.path)
        return StoredImages(self.path, self.shape, self.rows[chosen], self.broken)


def mapped(path: Path, count: int, shape: Shape) -> Pixels:
    """Images in a file as an array ``(count, H, W, C)`` that is read where it is looked at.

    Raises:
        WorkFolderError: the file is of another length: it is damaged, or holds images of another size.
    """
    if not count:
        return np.zeros((0, *shape), np.uint8)
    expected, length = count * int(np.prod(shape)), path.stat().st_size if path.exists() else 0
    if length != expected:
        raise WorkFolderError(
            f"the images in {path} are not those that were prepared",
            why=f"the file has {length:,} bytes, and {count} images of {shape[1]}x{shape[0]}x{shape[2]} take "
            f"{expected:,}",
            fix=f"remove the folder {path.parent} and run the same command again: the images are read anew",
        )
    return np.asarray(np.memmap(path, np.uint8, "r", shape=(count, *shape)))


def journal_of(path: Path) -> Path:
    """The file beside an image file that says what is in it, chunk by chunk."""
    return path.with_name(path.name + ".journal")


@dataclass(frozen=True)
class _Chunk:
    """Images ``start`` to ``end`` of the source; of those in ``rows``, pixels of a digest are in the file."""

    start: int
    end: int
    shape: Shape
    rows: tuple[int, ...]
    broken: tuple[str, ...]
    digest: str

    @property
    def size(self) -> int:
        return len(self.rows) * int(np.prod(self.shape))


_CHUNK = TypeAdapter(_Chunk)


def store_images(
    source: LabelledImages, path: Path, *, size: Size | None, channels: int = 1, advance: Advance
) -> StoredImages:
    """Decode all images of a split into a file; what a killed call has decoded is not decoded again.

    Args:
        source: where they come from.
        path: the file; a journal lies beside it, by which the next call goes on.
        size: side of a square, or height and width, to which images are resized and cropped.
        channels: at least this many; three once an image has colour.
        advance: called after every chunk.

    Raises:
        DataError: images differ in size.
        WorkFolderError: the disk has not the space for so many images.
        OSError: the file cannot be written.
    """
    count, done = len(source.labels), _done(path, channels)
    with path.open("r+b" if done else "wb") as rows, journal_of(path).open("w") as journal:
        rows.truncate(sum(each.size for each in done))
        rows.seek(0, 2)
        for each in done:
            _note(each, journal)
            advance(each.end - each.start)
        while (start := done[-1].end if done else 0) < count:
            shape = next((each.shape for each in done if each.rows), None)
            end = min(count, start + _rows_of_chunk(shape, size))
            decoded = source.read(np.arange(start, end))
            pixels = decoded.pixels if size is None else resize_all(decoded.pixels, size)
            if len(pixels):
                wanted = max(channels, pixels.shape[3])
                if shape is not None and wanted > shape[2]:
                    # All were grey so far, and now there is colour.
                    advance(-start)
                    return store_images(source, path, size=size, channels=wanted, advance=advance)
                pixels = with_channels(pixels, wanted if shape is None else shape[2])
                _require_same(pixels, shape)
                _require_space(path, count - start, pixels)
            rows.write(np.ascontiguousarray(pixels).data)
            rows.flush()
            found = tuple((start + decoded.rows).tolist())
            done.append(
                _Chunk(start, end, pixels.shape[1:], found, decoded.broken, _digest(pixels.tobytes()))
            )
            _note(done[-1], journal)
            advance(end - start)
    return StoredImages(
        path,
        next((each.shape for each in done if each.rows), (1, 1, 1)),
        np.array([row for each in done for row in each.rows], np.int64),
        tuple(name for each in done for name in each.broken),
    )


def _done(path: Path, channels: int) -> list[_Chunk]:
    """What an earlier call has decoded, as far as the file still has it."""
    if not path.is_file() or not journal_of(path).is_file():
        return []
    done: list[_Chunk] = []
    with path.open("rb") as rows:
        for line in journal_of(path).read_text().splitlines():
            try:
                chunk = _CHUNK.validate_json(line)
            except ValidationError:  # A kill leaves half a line.
                break
            if chunk.rows and chunk.shape[2] < channels:
                return []
            if _digest(rows.read(chunk.size)) != chunk.digest:
                break
            done.append(chunk)
    return done


def _note(chunk: _Chunk, journal: IO[str]) -> None:
    journal.write(_CHUNK.dump_json(chunk).decode() + "\n")
    journal.flush()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _rows_of_chunk(shape: Shape | None, size: Size | None) -> int:
    """As many as the memory of a chunk allows; few while the size of images is not known."""
    if shape is None and size is None:
        return _FEWEST_ROWS
    image = int(np.prod(shape if shape is not None else (3, *height_and_width(size or 1))))
    return min(max(_CHUNK_BYTES // image, 1), _MOST_ROWS)


def _require_same(pixels: Pixels, shape: Shape | None) -> None:
    height, width = pixels.shape[1:3]
    if shape is not None and (height, width) != shape[:2]:
        raise DataError(
            "images differ in size",
            why=f"some are {shape[1]}x{shape[0]}, others {width}x{height} (width x height)",
            fix="set image_size in [data], e.g. image_size = 64",
        )


def _require_space(path: Path, count: int, pixels: Pixels) -> None:
    """Before hours of decoding, not after them."""
    needed, free = count * pixels[0].nbytes, shutil.disk_usage(path.parent).free
    if needed > free:
        height, width = pixels.shape[1:3]
        raise WorkFolderError(
            f"there is no space to keep {count} images of {width}x{height} pixels in {path.parent}",
            why=f"they take {gigabytes(needed)}, and {gigabytes(free)} are free",
            fix="free some space and run the same command again, choose another folder with --work, or lower "
            "image_size or train_limit",
        )
