"""Exports are kept by content, whole or not at all, within a size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.export.cache import DEFAULT_LIMIT_BYTES, ExportCache, parse_size

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture(name="cache")
def _cache(tmp_path: Path) -> ExportCache:
    return ExportCache(tmp_path / "cache", 1000)


@pytest.fixture(name="place")
def _place(cache: ExportCache) -> Iterator[Path]:
    with cache.place() as folder:
        yield folder


def keep(cache: ExportCache, place: Path, identity: str, content: bytes, suffix: str = ".onnx") -> None:
    path = place / f"{identity}{suffix}"
    path.write_bytes(content)
    cache.keep(identity, path)
    path.unlink()


def taken(cache: ExportCache, place: Path, identity: str, suffix: str = ".onnx") -> bytes | None:
    path = place / "taken" / f"{identity}{suffix}"
    if not cache.take(identity, path):
        return None
    content = path.read_bytes()
    path.unlink()
    return content


def kept_files(cache: ExportCache) -> list[Path]:
    return sorted(cache.folder.glob("??/*"))


def test_what_is_kept_is_taken_by_other_processes_too(cache: ExportCache, place: Path) -> None:
    keep(cache, place, A, b"content")
    other = ExportCache(cache.folder, cache.limit_bytes)
    assert taken(other, place, A) == b"content"
    assert taken(other, place, B) is None
    assert taken(other, place, A, ".tflite") is None


def test_the_place_is_gone_in_the_end_and_what_is_kept_is_not(cache: ExportCache) -> None:
    with cache.place() as place:
        keep(cache, place, A, b"content")
    assert not place.exists()
    assert [path.read_bytes() for path in kept_files(cache)] == [b"content"]


def test_what_was_used_the_longest_ago_is_removed_first(cache: ExportCache, place: Path) -> None:
    keep(cache, place, A, b"a" * 400)
    keep(cache, place, B, b"b" * 400)
    for age, path in enumerate(kept_files(cache)):
        os.utime(path, (1000 + age, 1000 + age))
    assert taken(cache, place, A) is not None
    keep(cache, place, C, b"c" * 400)
    assert taken(cache, place, B) is None
    assert taken(cache, place, A) == b"a" * 400
    assert taken(cache, place, C) == b"c" * 400


def test_a_file_in_use_stays_when_it_is_removed_from_the_cache(cache: ExportCache, place: Path) -> None:
    keep(cache, place, A, b"a" * 400)
    path = place / f"{A}.onnx"
    assert cache.take(A, path)
    for number in range(5):
        keep(cache, place, f"{number:064x}", bytes([number]) * 400)
    assert path.read_bytes() == b"a" * 400


@given(sizes=st.lists(st.integers(0, 700), max_size=30))
def test_all_files_together_are_never_larger_than_the_limit(
    sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = ExportCache(tmp_path_factory.mktemp("cache"), 1000)
    with cache.place() as place:
        for number, size in enumerate(sizes):
            keep(cache, place, f"{number:064x}", b"x" * size)
            assert sum(path.stat().st_size for path in kept_files(cache)) <= 1000


def test_a_file_larger_than_the_cache_is_not_kept(cache: ExportCache, place: Path) -> None:
    keep(cache, place, A, b"a" * 1001)
    assert not kept_files(cache)


def test_a_damaged_file_is_not_taken_and_goes(cache: ExportCache, place: Path) -> None:
    keep(cache, place, A, b"content")
    kept_files(cache)[0].write_bytes(b"c0ntent")
    assert taken(cache, place, A) is None
    assert not kept_files(cache)


def test_a_cache_whose_folder_cannot_be_made_keeps_nothing_and_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = ExportCache(tmp_path / "file" / "cache", 1000)
    with cache.place() as place:
        keep(cache, place, A, b"content")
        assert taken(cache, place, A) is None


def test_files_are_copied_where_there_are_no_links(
    cache: ExportCache, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    keep(cache, place, A, b"content")
    assert taken(cache, place, A) == b"content"


def test_folder_and_size_are_the_users_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATHE_CACHE", str(tmp_path))
    monkeypatch.delenv("LATHE_CACHE_SIZE", raising=False)
    assert ExportCache.of_user().folder == tmp_path / "exports"
    assert ExportCache.of_user().limit_bytes == DEFAULT_LIMIT_BYTES
    monkeypatch.setenv("LATHE_CACHE_SIZE", "500 MB")
    assert ExportCache.of_user().limit_bytes == 500_000_000


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1000", 1000), ("2 GB", 2 * 10**9), ("1.5GB", 1_500_000_000), ("3kB", 3000)]
)
def test_a_size_has_a_unit_or_is_in_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1 TB", "1.5", "9" * 30, "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="LATHE_CACHE_SIZE"):
        parse_size(text)
