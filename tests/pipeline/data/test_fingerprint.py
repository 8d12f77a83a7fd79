from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data import DataConfig
from pipeline.data.fingerprint import fingerprint


def of(folder: Path) -> str:
    return fingerprint(DataConfig(kind="folder", path=folder))


@pytest.fixture(name="linked")
def _linked(tmp_path: Path) -> Path:
    """A folder of images whose classes are links to folders elsewhere."""
    for name in ("cats", "dogs"):
        (tmp_path / "store" / name).mkdir(parents=True)
        (tmp_path / "store" / name / "0.png").write_bytes(b"first")
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for name in ("cats", "dogs"):
            (tmp_path / "data" / split / name).symlink_to(tmp_path / "store" / name)
    return tmp_path / "data"


def test_a_change_below_a_linked_folder_is_noticed(linked: Path) -> None:
    before = of(linked)
    assert of(linked) == before
    (linked.parent / "store" / "dogs" / "0.png").write_bytes(b"another")
    changed = of(linked)
    (linked.parent / "store" / "dogs" / "1.png").write_bytes(b"more")
    assert len({before, changed, of(linked)}) == 3


def test_another_place_of_a_link_is_noticed(linked: Path) -> None:
    before = of(linked)
    (linked.parent / "store" / "wolves").mkdir()
    (linked / "train" / "dogs").unlink()
    (linked / "train" / "dogs").symlink_to(linked.parent / "store" / "wolves")
    assert of(linked) != before


def test_links_in_a_circle_end(linked: Path) -> None:
    before = of(linked)
    (linked.parent / "store" / "cats" / "again").symlink_to(linked)
    (linked / "train" / "itself").symlink_to(linked / "train" / "itself")
    (linked / "nowhere").symlink_to(linked / "absent")
    assert of(linked) == before


def test_a_linked_folder_counts_like_a_real_one(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(linked)
    assert of(tmp_path / "link") == of(linked)
