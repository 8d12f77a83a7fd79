"""A bundle is written at once, holds what it was given, and never replaces what is not a bundle."""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from devices.digests import file_digest
from devices.errors import TargetError
from devices.target import Target
from pipeline.bundle import (
    BundleContent,
    CompileContent,
    CompileOrigin,
    RunContent,
    RunOrigin,
    manifest_schema,
    read_bundle,
    write_bundle,
)
from pipeline.bundle.manifest import manifest_bytes, manifest_digest, plain_path, target_slug
from pipeline.bundle.writing import inference_script
from pipeline.errors import VerificationError, WorkFolderError
from pipeline.target_verdict import TargetVerdict

SLUG = "host_onnxruntime_fp32_1"


def files_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()
    }


def replaced(content: BundleContent, report: Path) -> RunContent:
    assert isinstance(content.origin, RunContent)
    return dataclasses.replace(content.origin, report=report)


def test_write_bundle_describes_what_it_was_given(
    written_bundle: Path, bundle_content: BundleContent
) -> None:
    manifest = read_bundle(written_bundle)
    (entry,) = manifest.targets
    verdict = bundle_content.targets[0].verdict
    assert entry.artifact == f"artifacts/{SLUG}/model.onnx"
    assert entry.reference == f"reference/{SLUG}/model.onnx"
    assert entry.inputs == bundle_content.targets[0].inputs
    assert entry.outputs == bundle_content.targets[0].outputs
    assert entry.predicted is not None
    assert (entry.predicted.kind, entry.measured.kind) == ("estimate", "measurement")
    assert entry.measured.value_ns == verdict.measurement.latency.value_ns
    assert entry.accuracy is not None
    assert (entry.accuracy.correct, entry.accuracy.total, entry.feasible) == (11, 12, verdict.feasible)
    origin, given = manifest.origin, bundle_content.origin
    assert isinstance(origin, RunOrigin)
    assert isinstance(given, RunContent)
    assert origin.student.accuracy == pytest.approx(11 / 12)
    assert (written_bundle / origin.recipe).read_text() == given.recipe


def test_write_bundle_of_a_compiled_model_needs_no_teacher_recipe_or_images(
    compiled_content: BundleContent, tmp_path: Path
) -> None:
    folder = write_bundle(compiled_content, tmp_path / "bundle")
    manifest = read_bundle(folder)
    (entry,), origin = manifest.targets, manifest.origin
    assert isinstance(origin, CompileOrigin)
    assert isinstance(compiled_content.origin, CompileContent)
    assert origin.model == "two.onnx"
    assert origin.model_digest == file_digest(compiled_content.origin.model)
    assert json.loads((folder / origin.variants).read_text()) == {"variants": [{"name": "fp32"}]}
    assert (manifest.classifier, manifest.test, entry.budget, entry.accuracy) == (None, None, None, None)
    assert [each.name for each in entry.inputs] == ["left", "right"]
    assert entry.ratio is not None


@pytest.mark.parametrize(
    ("is_artifact", "runs_on"), [(True, "this processor"), (False, "any processor with the runtime")]
)
def test_a_portable_file_that_is_the_artifact_itself_runs_where_that_does(
    bundle_content: BundleContent, tmp_path: Path, *, is_artifact: bool, runs_on: str
) -> None:
    (target,) = bundle_content.targets
    target = dataclasses.replace(target, portable=target.artifact if is_artifact else target.portable)
    content = dataclasses.replace(bundle_content, targets=(target,))
    (entry,) = read_bundle(write_bundle(content, tmp_path / "bundle")).targets
    assert (entry.artifact_runs_on, entry.portable_runs_on) == ("this processor", runs_on)


def test_write_bundle_keeps_the_test_split_and_the_raw_samples(
    written_bundle: Path, bundle_content: BundleContent
) -> None:
    test = bundle_content.classifier.test if bundle_content.classifier else None
    assert test is not None
    with np.load(written_bundle / "data" / "test.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["images"], test.images)
        assert np.array_equal(arrays["labels"], test.labels)
    document = json.loads((written_bundle / f"measurements/{SLUG}.json").read_text())
    assert TargetVerdict.from_json(document) == bundle_content.targets[0].verdict


def test_write_bundle_writes_the_same_bytes_for_the_same_content(
    written_bundle: Path, bundle_content: BundleContent, tmp_path: Path
) -> None:
    assert files_of(write_bundle(bundle_content, tmp_path / "again")) == files_of(written_bundle)


def test_write_bundle_replaces_an_earlier_bundle_whole(
    bundle_content: BundleContent, own_bundle: Path
) -> None:
    (own_bundle / "signature.json").write_text("")
    (own_bundle / "report.html").write_text("changed")
    write_bundle(dataclasses.replace(bundle_content, name="second"), own_bundle)
    assert read_bundle(own_bundle).name == "second"
    assert [path.name for path in own_bundle.parent.iterdir()] == ["bundle"]


def test_write_bundle_leaves_the_earlier_bundle_when_it_fails(
    bundle_content: BundleContent, own_bundle: Path
) -> None:
    before = files_of(own_bundle)
    broken = dataclasses.replace(
        bundle_content, origin=replaced(bundle_content, own_bundle.parent / "none.html")
    )
    with pytest.raises(OSError, match=r"none\.html"):
        write_bundle(broken, own_bundle)
    assert files_of(own_bundle) == before
    assert [path.name for path in own_bundle.parent.iterdir()] == ["bundle"]


def test_write_bundle_replaces_a_bundle_of_an_older_version(
    bundle_content: BundleContent, own_bundle: Path
) -> None:
    document = json.loads((own_bundle / "manifest.json").read_bytes())
    del document["components"]
    document["schema_version"] = 1
    document["digest"] = manifest_digest(document)
    (own_bundle / "manifest.json").write_bytes(manifest_bytes(document))
    write_bundle(bundle_content, own_bundle)
    assert read_bundle(own_bundle).name == "tiny"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("thesis.txt", "years of work"),
        ("manifest.json", '{"name": "a web app", "start_url": "/"}'),
        ("manifest.json", '{"digest": "0", "files": {}}'),
        ("manifest.json", "[]"),
        ("manifest.json", "no JSON"),
    ],
)
def test_write_bundle_does_not_replace_a_folder_that_is_no_bundle(
    bundle_content: BundleContent, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / "index.html").write_text("a page")
    (tmp_path / name).write_text(content)
    before = files_of(tmp_path)
    with pytest.raises(WorkFolderError, match="is not replaced by a bundle") as caught:
        write_bundle(bundle_content, tmp_path)
    assert caught.value.why == "it exists and is not a bundle"
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("name", ["notes.txt", "artifacts/mine/model.onnx"])
def test_write_bundle_does_not_replace_a_bundle_with_a_file_of_somebody(
    bundle_content: BundleContent, own_bundle: Path, name: str
) -> None:
    (own_bundle / name).parent.mkdir(exist_ok=True)
    (own_bundle / name).write_text("years of work")
    before = files_of(own_bundle)
    with pytest.raises(WorkFolderError, match="is not replaced by a bundle") as caught:
        write_bundle(bundle_content, own_bundle)
    assert caught.value.why == f"it holds {name}, which is not of the bundle there"
    assert caught.value.fix == "choose another folder, or move it away"
    assert files_of(own_bundle) == before


def test_write_bundle_does_not_replace_a_bundle_with_a_link_or_in_place_of_one(
    bundle_content: BundleContent, own_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(own_bundle)
    with pytest.raises(WorkFolderError, match="is not replaced by a bundle"):
        write_bundle(bundle_content, tmp_path / "link")
    (own_bundle / "data" / "more").symlink_to(tmp_path)
    with pytest.raises(WorkFolderError, match="is not replaced by a bundle"):
        write_bundle(bundle_content, own_bundle)
    assert (own_bundle / "data" / "more").is_symlink()


def test_write_bundle_refuses_an_artifact_that_was_not_verified(
    bundle_content: BundleContent, tmp_path: Path
) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(bundle_content.targets[0].artifact.read_bytes() + b"\0")
    target = dataclasses.replace(bundle_content.targets[0], artifact=other)
    with pytest.raises(VerificationError, match="is not the file that was verified"):
        write_bundle(dataclasses.replace(bundle_content, targets=(target,)), tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["other.onnx"]


def test_write_bundle_leaves_the_earlier_bundle_when_the_disk_takes_no_more(
    bundle_content: BundleContent, own_bundle: Path
) -> None:
    """A real limit on the size of files stands for the full disk."""
    before = files_of(own_bundle)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))
    try:
        with pytest.raises(WorkFolderError, match="no space to write"):
            write_bundle(bundle_content, own_bundle)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_of(own_bundle) == before
    assert [path.name for path in own_bundle.parent.iterdir()] == ["bundle"]


def test_write_bundle_names_the_folder_that_cannot_be_written(
    bundle_content: BundleContent, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkFolderError, match="cannot write"):
        write_bundle(bundle_content, tmp_path / "file" / "bundle")


def test_inference_script_imports_only_numpy_the_runtime_the_standard_library_and_pillow() -> None:
    for runtime, packages in (
        ("onnxruntime", {"onnxruntime"}),
        ("litert", {"ai_edge_litert"}),
        ("openvino", {"openvino"}),
        ("executorch", {"executorch", "torch"}),
        ("torch", {"torch"}),
    ):
        source = inference_script(runtime)
        compile(source, runtime, "exec")
        imported = {
            line.split()[1].split(".")[0]
            for line in map(str.strip, source.splitlines())
            if line.startswith(("import ", "from "))
        }
        assert imported - set(sys.stdlib_module_names) == {"numpy", *packages, "PIL"}


def test_inference_script_refuses_a_runtime_without_a_script() -> None:
    for runtime in ("tensorrt", "common"):
        with pytest.raises(TargetError, match="no inference script"):
            inference_script(runtime)


def test_manifest_schema_describes_every_field(written_bundle: Path) -> None:
    schema = manifest_schema()
    document = json.loads((written_bundle / "manifest.json").read_bytes())
    assert set(schema["properties"]) == set(document)
    assert schema["additionalProperties"] is False


def test_target_slug_is_a_plain_name() -> None:
    slugs = {target_slug(Target.parse(text)) for text in ("a/b-c:fp32@1", "a-b/c:fp32@1", "a/b:int8+gpu@4")}
    assert slugs == {"a_b-c_fp32_1", "a-b_c_fp32_1", "a_b_int8+gpu_4"}
    assert all(plain_path(slug) == slug for slug in slugs)
