"""A bundle is accepted only exactly as it was written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.bundle import read_bundle
from pipeline.bundle.manifest import manifest_bytes, manifest_digest
from pipeline.errors import VerificationError


def rewritten(bundle: Path, change: dict[str, Any]) -> None:
    """Change the manifest as an attacker would: with a digest that fits."""
    path = bundle / "manifest.json"
    document = {**json.loads(path.read_bytes()), **change}
    document["digest"] = manifest_digest(document)
    path.write_bytes(manifest_bytes(document))


def test_read_bundle_says_that_the_folder_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="there is no bundle") as caught:
        read_bundle(tmp_path / "nowhere")
    assert caught.value.why == "there is no such folder"


def test_read_bundle_accepts_what_was_written(written_bundle: Path) -> None:
    manifest = read_bundle(written_bundle)
    assert manifest.classifier is not None
    assert manifest.classifier.labels[0] == "top"
    assert set(manifest.files) == {
        path.relative_to(written_bundle).as_posix()
        for path in written_bundle.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.mark.parametrize("which", ["artifact", "portable"])
def test_read_bundle_checks_the_digests_of_artifact_and_portable_model(own_bundle: Path, which: str) -> None:
    document = json.loads((own_bundle / "manifest.json").read_bytes())
    (target,) = document["targets"]
    assert (own_bundle / target["portable"]).suffix == (own_bundle / target["artifact"]).suffix
    rewritten(own_bundle, {"targets": [target | {f"{which}_digest": "0" * 64}]})
    with pytest.raises(VerificationError, match=f"{target[which]} has another digest"):
        read_bundle(own_bundle)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_read_bundle_finds_any_changed_byte_of_any_file(written_bundle: Path, data: st.DataObject) -> None:
    files = sorted(path for path in written_bundle.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    original = path.read_bytes()
    offset = data.draw(st.integers(0, len(original) - 1))
    value = data.draw(st.integers(1, 255))
    changed = bytearray(original)
    changed[offset] ^= value
    try:
        path.write_bytes(changed)
        with pytest.raises(VerificationError) as caught:
            read_bundle(written_bundle)
    finally:
        path.write_bytes(original)
    assert path.name in str(caught.value)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_read_bundle_finds_any_truncated_file(written_bundle: Path, data: st.DataObject) -> None:
    files = sorted(path for path in written_bundle.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    original = path.read_bytes()
    try:
        path.write_bytes(original[: data.draw(st.integers(0, len(original) - 1))])
        with pytest.raises(VerificationError, match=path.name):
            read_bundle(written_bundle)
    finally:
        path.write_bytes(original)


def test_read_bundle_names_an_extra_file(own_bundle: Path) -> None:
    (own_bundle / "data" / "more.npz").write_bytes(b"")
    with pytest.raises(VerificationError, match=r"data/more\.npz is not listed"):
        read_bundle(own_bundle)


@pytest.mark.parametrize("name", ["data/test.npz", "report.html", "infer_onnxruntime.py", "manifest.json"])
def test_read_bundle_names_a_missing_file(own_bundle: Path, name: str) -> None:
    (own_bundle / name).unlink()
    with pytest.raises(VerificationError, match=f"{name} is missing"):
        read_bundle(own_bundle)


@pytest.mark.parametrize("name", ["data/test.npz", "manifest.json"])
def test_read_bundle_refuses_a_link_even_to_the_same_bytes(
    own_bundle: Path, tmp_path: Path, name: str
) -> None:
    shutil.move(own_bundle / name, tmp_path / "elsewhere")
    (own_bundle / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VerificationError, match=name):
        read_bundle(own_bundle)


def test_read_bundle_refuses_a_linked_folder(own_bundle: Path, tmp_path: Path) -> None:
    shutil.move(own_bundle / "data", tmp_path / "elsewhere")
    (own_bundle / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VerificationError, match="data is a link"):
        read_bundle(own_bundle)


def test_read_bundle_refuses_a_special_file_without_opening_it(own_bundle: Path) -> None:
    os.mkfifo(own_bundle / "pipe")
    with pytest.raises(VerificationError, match="pipe is a link or a special file"):
        read_bundle(own_bundle)


@pytest.mark.parametrize(
    "path",
    ["../outside", "/etc/hostname", "data/../../outside", "./data/test.npz", "", "C:/x", "a\\b", "a//b"],
)
def test_read_bundle_refuses_a_path_that_is_not_plainly_inside(own_bundle: Path, path: str) -> None:
    (own_bundle.parent / "outside").write_bytes(b"")
    rewritten(own_bundle, {"test": path})
    with pytest.raises(VerificationError, match=r"manifest\.json is not valid at test"):
        read_bundle(own_bundle)
    files = json.loads((own_bundle / "manifest.json").read_bytes())["files"]
    rewritten(own_bundle, {"test": "data/test.npz", "files": {**files, path: "0" * 64}})
    with pytest.raises(VerificationError, match=r"manifest\.json is not valid at files"):
        read_bundle(own_bundle)


def test_read_bundle_refuses_a_used_file_without_a_digest(own_bundle: Path) -> None:
    rewritten(own_bundle, {"test": "manifest.json"})
    with pytest.raises(VerificationError, match="has no digest"):
        read_bundle(own_bundle)


def test_read_bundle_says_what_to_do_with_an_older_schema(own_bundle: Path) -> None:
    rewritten(own_bundle, {"schema_version": 2})
    with pytest.raises(VerificationError, match="has schema 2, this version reads 3") as caught:
        read_bundle(own_bundle)
    assert "give the same lathe run" in caught.value.fix


def test_read_bundle_names_the_remedy_for_a_newer_schema(own_bundle: Path) -> None:
    rewritten(own_bundle, {"schema_version": 4, "news": True})
    with pytest.raises(VerificationError, match="has schema 4") as caught:
        read_bundle(own_bundle)
    assert "update" in caught.value.fix


def test_read_bundle_refuses_unknown_keys(own_bundle: Path) -> None:
    rewritten(own_bundle, {"news": True})
    with pytest.raises(VerificationError, match="not valid at news"):
        read_bundle(own_bundle)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"schema_version": 3}', "[" * 100_000, "\xff", "NaN"]
)
def test_read_bundle_says_so_when_the_manifest_is_no_manifest(own_bundle: Path, text: str) -> None:
    (own_bundle / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(VerificationError, match=r"manifest\.json cannot be read"):
        read_bundle(own_bundle)


def test_read_bundle_refuses_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"manifest\.json is missing"):
        read_bundle(tmp_path)
