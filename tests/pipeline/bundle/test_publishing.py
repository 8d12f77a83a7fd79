"""Nothing that was made is overwritten: a bundle's name has its content, a link leads to the latest."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.bundle import BundleContent, RunContent, publish, read_bundle, write_bundle


def made(content: BundleContent, folder: Path, recipe: str) -> Path:
    assert isinstance(content.origin, RunContent)
    origin = replace(content.origin, recipe=recipe)
    return write_bundle(replace(content, origin=origin), folder / recipe.replace(" ", "-"))


def test_another_bundle_of_one_name_leaves_the_first_where_it_was(
    bundle_content: BundleContent, tmp_path: Path
) -> None:
    bundles = tmp_path / "bundles"
    first = publish(made(bundle_content, tmp_path, "one"), "tiny", bundles)
    digest = read_bundle(first).digest
    second = publish(made(bundle_content, tmp_path, "two"), "tiny", bundles)
    assert first.name == f"tiny-{digest[:12]}"
    assert read_bundle(first).digest == digest
    assert second != first
    assert (bundles / "tiny").resolve() == second
    # The link is relative: the work folder may be moved.
    moved = tmp_path / "moved"
    shutil.move(bundles, moved)
    assert read_bundle(moved / "tiny").digest == read_bundle(moved / second.name).digest
    assert sorted(path.name for path in moved.iterdir()) == sorted([first.name, second.name, "tiny"])


def test_the_link_goes_back_to_a_bundle_that_is_made_again(
    bundle_content: BundleContent, tmp_path: Path
) -> None:
    one, two = (made(bundle_content, tmp_path, text) for text in ("one", "two"))
    first = publish(one, "tiny", tmp_path / "bundles")
    written = (first / "manifest.json").stat().st_mtime_ns
    publish(two, "tiny", tmp_path / "bundles")
    assert publish(one, "tiny", tmp_path / "bundles") == first
    assert (tmp_path / "bundles" / "tiny").resolve() == first
    assert (first / "manifest.json").stat().st_mtime_ns == written


def test_a_bundle_that_was_changed_and_a_folder_in_the_links_place_are_put_aside(
    bundle_content: BundleContent, tmp_path: Path
) -> None:
    bundle, bundles = made(bundle_content, tmp_path, "one"), tmp_path / "bundles"
    place = publish(bundle, "tiny", bundles)
    (place / "recipe.toml").write_text("mine")
    (bundles / "tiny").unlink()
    (bundles / "tiny").mkdir()
    assert publish(bundle, "tiny", bundles) == place
    read_bundle(place)
    assert (bundles / f"{place.name}.changed-1" / "recipe.toml").read_text() == "mine"
    assert (bundles / "tiny.changed-1").is_dir()


def test_where_links_cannot_be_made_a_file_names_the_latest(
    bundle_content: BundleContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    place = publish(made(bundle_content, tmp_path, "one"), "tiny", tmp_path / "bundles")
    assert (tmp_path / "bundles" / "tiny.latest").read_text() == f"{place.name}\n"
