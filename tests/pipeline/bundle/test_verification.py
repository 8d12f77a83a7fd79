"""A bundle proves its accuracy and latency again from itself alone."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.digests import file_digest
from devices.errors import MeasurementError
from devices.inventory.devices import HOST, known_devices
from devices.inventory.devices_file import trust_project_file
from devices.measurement import BetweenBatches, Spread
from pipeline.budget import Budget
from pipeline.bundle import (
    BundleContent,
    TensorDescription,
    read_bundle,
    verify_bundle,
    write_bundle,
    write_callers,
)
from pipeline.bundle.claims import not_repeated
from pipeline.bundle.descriptions import Edge, description_differences, edges_of
from pipeline.bundle.manifest import Quantisation, manifest_bytes, manifest_digest
from pipeline.errors import VerificationError
from pipeline.export import flatbuffer
from pipeline.target_verdict import Accuracy, judge
from tests.devices.tiny_models import INPUTS, OUTPUTS, write_tiny_tflite
from tests.pipeline.tiny_bundles import with_program

WILD = BetweenBatches(Spread(20.0, 20, 20), Spread(0.0, 5, 3))


def state(folder: Path) -> list[tuple[str, int, int]]:
    entries = ((path, path.lstat()) for path in (folder, *folder.rglob("*")))
    return sorted((str(path), seen.st_mtime_ns, seen.st_size) for path, seen in entries)


def ignore(done: int, total: int) -> None:
    """No progress is shown."""


def test_verify_bundle_repeats_accuracy_and_latency_and_writes_nothing(
    written_bundle: Path, bundle_content: BundleContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state(written_bundle)
    steps: list[tuple[int, int]] = []
    result = verify_bundle(written_bundle, lambda done, total: steps.append((done, total)))
    (target,) = result.targets
    assert target.accuracy_holds
    assert target.verdict.accuracy == bundle_content.targets[0].verdict.accuracy
    assert target.expected is not None
    assert target.expected.correct == 11
    assert target.verdict.reference is not None
    assert target.verdict.measurement.protocol.launches == 3
    assert result.holds is target.verdict.feasible
    assert steps == [(0, 1), (1, 1)]
    assert state(written_bundle) == before
    assert not list(tmp_path.iterdir())
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["holds"] is result.holds
    assert document["targets"][0]["verdict"]["measurement"]["kind"] == "measurement"


@pytest.mark.usefixtures("quiet_machine")
def test_verify_bundle_judges_by_what_is_known_here_of_the_device(
    bundle_content: BundleContent, tmp_path: Path
) -> None:
    """A budget that the launches keep, on a machine that changes by more than that."""
    (target,) = bundle_content.targets
    budget, given = Budget.parse("1000ms"), target.verdict
    feasible, why = judge(budget, given.measurement, given.reference, given.ratio)
    verdict = dataclasses.replace(given, budget=budget, feasible=feasible, why=why)
    content = dataclasses.replace(bundle_content, targets=(dataclasses.replace(target, verdict=verdict),))
    folder = write_bundle(content, tmp_path / "bundle")
    steady, wild = verify_bundle(folder, ignore), verify_bundle(folder, ignore, between=lambda _: WILD)
    assert steady.targets[0].verdict.feasible
    assert steady.targets[0].verdict.between is None
    assert not wild.targets[0].verdict.feasible
    entry = wild.to_json()["targets"][0]
    assert entry["latency_on_device_ns"]["high"] > 1e9 > entry["latency_ns"]["high"]
    assert steady.to_json()["targets"][0]["latency_on_device_ns"] is None


def test_verify_bundle_does_not_hold_when_accuracy_or_budget_was_claimed_too_high(
    bundle_content: BundleContent, tmp_path: Path
) -> None:
    """Though the measurements beside the manifest claim the same."""
    (target,) = bundle_content.targets
    budget, given = Budget.parse("0.000001x"), target.verdict
    feasible, why = judge(budget, given.measurement, given.reference, given.ratio)
    verdict = dataclasses.replace(
        given, accuracy=Accuracy(9, 12, ()), budget=budget, feasible=feasible, why=why
    )
    boasting = dataclasses.replace(target, verdict=verdict)
    folder = write_bundle(dataclasses.replace(bundle_content, targets=(boasting,)), tmp_path / "bundle")
    result = verify_bundle(folder, ignore)
    assert not result.targets[0].accuracy_holds
    assert not result.targets[0].verdict.feasible
    assert not result.holds


def entry(**change: Any) -> Callable[[dict[str, Any]], None]:
    """Changes of the first target of a manifest; a key may go deeper, as ``measured__value_ns``."""

    def apply(manifest: dict[str, Any]) -> None:
        for key, value in change.items():
            *parents, last = key.split("__")
            place = manifest["targets"][0]
            for each in parents:
                place = place[each]
            place[last] = value

    return apply


def forged(bundle: Path, change: Callable[[dict[str, Any]], None], name: str = "manifest.json") -> Path:
    """The bundle after a change of one of its JSON files, with every digest computed again."""
    path = bundle / name
    document = json.loads(path.read_bytes())
    change(document)
    if name != "manifest.json":
        path.write_text(json.dumps(document))
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        manifest["files"][name] = file_digest(path)
        document, path = manifest, bundle / "manifest.json"
    document["digest"] = manifest_digest(document)
    path.write_bytes(manifest_bytes(document))
    return bundle


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (entry(measured__value_ns=1.0), "the latency's value_ns is 1"),
        (entry(measured__low_ns=1.0), "the latency's low_ns is 1"),
        (entry(measured__reasons=["quiet"]), "the measurement is called"),
        (entry(ratio__value=0.5), "the ratio's value is 0.5"),
        (entry(ratio=None), "the ratio to the reference is there on one side only"),
        (entry(accuracy__correct=12), "12 of 12 images are correct, and 11 of 12 were"),
        (entry(accuracy__share=1.0), "the accuracy, 11 of 12 test images, is called 100.00%"),
        (entry(accuracy__by_class=[]), ""),
        (entry(accuracy=None), "the accuracy is there on one side only"),
        (entry(budget=None), "the budget is another one"),
        (entry(budget__words="10 ms"), "the budget is another one"),
        (entry(feasible=False), "the budget is kept by what was measured"),
        (entry(why="it is the best"), "it gives another reason"),
        (entry(target="host/onnxruntime:fp32@2"), "it was measured on host/onnxruntime:fp32@1"),
        (entry(reference=None), "the reference is not what was measured"),
    ],
)
def test_verify_bundle_refuses_claims_that_do_not_follow_from_its_measurements(
    own_bundle: Path, change: Callable[[dict[str, Any]], None], what: str
) -> None:
    forged(own_bundle, change)
    if not what:
        read_bundle(own_bundle)
        return
    with pytest.raises(VerificationError, match=re.escape(what)):
        verify_bundle(own_bundle, ignore)


def edge(kind: str, number: int = 0, **change: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one input or output of the first target."""
    return lambda manifest: manifest["targets"][0][kind][number].update(change)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (edge("inputs", name="image"), "the input 'image' is called 'left' in the artifact"),
        (edge("inputs", 1, shape=[1, 3]), "the input 'right' is 1x3, and the artifact has 1x2"),
        (edge("inputs", shape=[2]), "the input 'left' is 2, and the artifact has 1x2"),
        (edge("inputs", dtype="int8"), "the input 'left' is of int8, and the artifact has float32"),
        (edge("outputs", 1, name="logits"), "the output 'logits' is called 'size' in the artifact"),
        (edge("outputs", shape=[2, 2]), "the output 'difference' is 2x2, and the artifact has 1x2"),
        (edge("outputs", dtype="float16"), "the output 'difference' is of float16"),
        (lambda manifest: manifest["targets"][0]["inputs"].pop(), "it describes 1 inputs, and the artifact"),
        (lambda manifest: manifest["targets"][0]["outputs"].reverse(), "the output 'size' is called 'diff"),
    ],
)
def test_verify_bundle_refuses_inputs_and_outputs_that_the_artifact_has_not(
    compiled_content: BundleContent, tmp_path: Path, change: Callable[[dict[str, Any]], None], what: str
) -> None:
    bundle = write_bundle(compiled_content, tmp_path / "bundle")
    with pytest.raises(VerificationError, match=re.escape(what)):
        verify_bundle(forged(bundle, change), ignore)


@pytest.mark.slow
def test_descriptions_are_held_against_litert_files_by_the_names_of_signature_and_tensor(
    litert_content: BundleContent, tmp_path: Path
) -> None:
    bundle = write_bundle(litert_content, tmp_path / "bundle")
    entry = read_bundle(bundle).targets[1]
    measured = litert_content.targets[1].verdict.measurement

    def differences(**change: Any) -> list[str]:
        told = [each.model_copy(update=change) for each in entry.inputs]
        changed = entry.model_copy(update={"inputs": tuple(told)})
        return list(description_differences(bundle / entry.artifact, changed, measured))

    assert differences() == differences(name="serving_default_args_0") == []
    assert differences(name="input") == ["the input 'input' is called 'args_0' in the artifact"]
    assert len(differences(dtype="int8")) == 2
    (bundle / entry.artifact).write_bytes(b"damaged")
    assert edges_of(bundle / entry.artifact) is None
    assert differences(shape=(1, 4, 4, 3)) == [
        "the input 'args_0' is 1x4x4x3, and what was measured has 1x4x4x1"
    ]


def test_an_artifact_with_an_infinite_scale_is_not_what_any_manifest_describes(
    bundle_content: BundleContent, tmp_path: Path
) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    artifact = write_tiny_tflite(tmp_path / "model.tflite")

    def with_scale(scale: float) -> Edge:
        model = flatbuffer.read(artifact.read_bytes())
        output = model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]]
        output.quantization = schema.QuantizationParametersT(scale=[scale], zeroPoint=[3])
        artifact.write_bytes(flatbuffer.write(model))
        edges = edges_of(artifact)
        assert edges is not None
        return edges[1][0]

    assert with_scale(0.5).quantisation == Quantisation(scale=0.5, zero_point=3)
    assert with_scale(math.inf).quantisation is None
    (given,) = bundle_content.targets
    verdict = dataclasses.replace(
        given.verdict, target="host/litert:fp32@1", artifact_digest=file_digest(artifact), accuracy=None
    )
    target = dataclasses.replace(
        given,
        artifact=artifact,
        inputs=(TensorDescription(name="x", shape=(1, INPUTS)),),
        outputs=(TensorDescription(name="y", shape=(1, OUTPUTS)),),
        verdict=verdict,
    )
    content = dataclasses.replace(bundle_content, targets=(target,), classifier=None)
    bundle = write_bundle(content, tmp_path / "bundle")
    (described,) = read_bundle(bundle).targets
    said = "the output 'y' has an infinite scale in the artifact"
    assert said in description_differences(bundle / described.artifact, described, verdict.measurement)
    with pytest.raises(VerificationError, match=said):
        write_callers(bundle, tmp_path / "examples", c_header=False)


def test_verify_bundle_refuses_an_artifact_that_is_not_what_was_measured(own_bundle: Path) -> None:
    def exchange(manifest: dict[str, Any]) -> None:
        (target,) = manifest["targets"]
        target["artifact"], target["artifact_digest"] = (
            target["reference"],
            manifest["files"][target["reference"]],
        )

    with pytest.raises(VerificationError, match=r"the artifact has the digest .*, measured was"):
        verify_bundle(forged(own_bundle, exchange), ignore)


@pytest.mark.parametrize(
    "change",
    [
        entry(inputs=[{"name": "input", "shape": [1, 1, 4, 4], "layout": None, "dtype": "float32"}]),
        entry(inputs=[{"name": "input", "shape": [1, 1, 4, 4], "layout": "NK", "dtype": "float32"}]),
        entry(inputs=[{"name": "input", "shape": [1, 1, 5, 4], "layout": "NCHW", "dtype": "float32"}]),
        entry(inputs=[]),
        entry(target="host"),
        entry(target="host/onnxruntime:fp99@1"),
        lambda manifest: manifest.update(targets=[]),
        lambda manifest: manifest.update(targets=manifest["targets"] * 2),
        lambda manifest: manifest["classifier"].update(labels=[]),
        lambda manifest: manifest["classifier"]["preprocessing"].update(mean=[0.5, 0.5], std=[1.0, 1.0]),
        lambda manifest: manifest["classifier"]["preprocessing"].update(std=[0.0]),
    ],
)
def test_verify_bundle_refuses_a_manifest_that_describes_nothing_that_runs(
    own_bundle: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(VerificationError, match=r"manifest\.json is not valid at"):
        verify_bundle(forged(own_bundle, change), ignore)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda found: found.update(measurement=None), "cannot be read"),
        (lambda found: found["measurement"].update(launches=[]), "cannot be read"),
        (lambda found: found["accuracy"].update(total=0), "cannot be read"),
        (lambda found: found["measurement"]["protocol"].update(launches=99_999), "are too much"),
        (lambda found: found["measurement"]["protocol"].update(min_ns=10**13), "are too much"),
        (lambda found: found["measurement"]["protocol"].update(spread_ns=10**9), "over 1 s are too much"),
        (lambda found: found["reference"].update(artifact_digest="0" * 64), "the reference has the digest"),
    ],
)
def test_verify_bundle_refuses_measurements_that_are_none(
    own_bundle: Path, change: Callable[[dict[str, Any]], None], what: str
) -> None:
    (name,) = (path.relative_to(own_bundle).as_posix() for path in own_bundle.glob("measurements/*.json"))
    with pytest.raises(VerificationError, match=what):
        verify_bundle(forged(own_bundle, change, name), ignore)


def test_verify_bundle_says_what_it_cannot_find_out(
    own_bundle: Path, compiled_content: BundleContent
) -> None:
    manifest = read_bundle(own_bundle)
    assert "accuracies of the teacher" in not_repeated(own_bundle, manifest)[0]
    assert not any("scripts" in each for each in not_repeated(own_bundle, manifest))
    with (own_bundle / "infer_onnxruntime.py").open("a") as script:
        script.write("print('mine')\n")
    assert any("scripts" in each for each in not_repeated(own_bundle, manifest))
    compiled = write_bundle(compiled_content, own_bundle.parent / "compiled")
    said = not_repeated(compiled, read_bundle(compiled))
    assert any("layouts by which inputs and outputs are described" in each for each in said)
    assert not any("names of inputs" in each for each in said)
    assert any("no test images" in each for each in said)
    assert not any("teacher" in each for each in said)


def test_verify_bundle_checks_integrity_first(own_bundle: Path) -> None:
    (own_bundle / "recipe.toml").write_text("")
    with pytest.raises(VerificationError, match=r"recipe\.toml was changed"):
        verify_bundle(own_bundle, ignore)


def test_verify_bundle_reads_no_devices_of_the_folder_that_it_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if the folder is the current one and its devices.toml is trusted."""
    monkeypatch.setattr("devices.inventory.devices_file._ignored", set())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "user.toml"))
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    monkeypatch.chdir(bundle)
    (bundle / "devices.toml").write_text('[devices.board]\nconnection = "local"\npython = "sh"\n')
    trust_project_file()
    assert len(known_devices()) == 2
    with pytest.raises(VerificationError):
        verify_bundle(bundle, ignore)
    assert known_devices() == (HOST,)


@pytest.mark.parametrize("as_reference", [False, True])
def test_verify_bundle_runs_no_program_that_nobody_trusts(
    as_reference: bool, bundle_content: BundleContent, tmp_path: Path
) -> None:
    content = with_program(bundle_content, tmp_path, as_reference=as_reference)
    with pytest.raises(MeasurementError, match="is a program, and you have not said that you trust it"):
        verify_bundle(write_bundle(content, tmp_path / "bundle"), ignore)


def with_test(bundle: Path, content: bytes) -> Path:
    """The bundle with other test images, and a manifest that fits them, as an attacker would write it."""
    (bundle / "data" / "test.npz").write_bytes(content)
    path = bundle / "manifest.json"
    document = json.loads(path.read_bytes())
    document["files"]["data/test.npz"] = file_digest(bundle / "data" / "test.npz")
    document["digest"] = manifest_digest(document)
    path.write_bytes(manifest_bytes(document))
    return bundle


def packed(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def test_verify_bundle_refuses_a_zip_bomb_without_unpacking_it(own_bundle: Path) -> None:
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as stream,
    ):
        shape = {"descr": "|u1", "fortran_order": False, "shape": (20_000_000, 4, 4, 1)}
        np.lib.format.write_array_header_1_0(stream, shape)
        for _ in range(320):
            stream.write(bytes(1_000_000))
    tracemalloc.start()
    with pytest.raises(VerificationError, match="suspiciously small for what it unpacks to"):
        verify_bundle(with_test(own_bundle, bomb.getvalue()), ignore)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize(
    "content",
    [
        b"no archive",
        packed(images=np.zeros((2, 4, 4, 1), np.uint8)),
        packed(images=np.zeros((2, 4, 4, 1), np.float32), labels=np.zeros(2, np.int64)),
        packed(images=np.zeros((2, 5, 4, 1), np.uint8), labels=np.zeros(2, np.int64)),
        packed(images=np.zeros((3, 4, 4, 1), np.uint8), labels=np.zeros(2, np.int64)),
        packed(images=np.zeros((2, 4, 4, 1), np.uint8), labels=np.array([0, 3])),
        packed(images=np.zeros((2, 4, 4, 1), np.uint8), labels=np.array([0, -1])),
        packed(images=np.zeros((0, 4, 4, 1), np.uint8), labels=np.zeros(0, np.int64)),
    ],
)
def test_verify_bundle_refuses_test_images_that_are_none(own_bundle: Path, content: bytes) -> None:
    with pytest.raises(VerificationError, match=r"data/test\.npz (cannot be read|does not hold)"):
        verify_bundle(with_test(own_bundle, content), ignore)


def test_verify_bundle_of_a_compiled_model_measures_it_and_has_no_accuracy_to_repeat(
    compiled_content: BundleContent, tmp_path: Path, quiet_machine: None
) -> None:
    result = verify_bundle(write_bundle(compiled_content, tmp_path / "bundle"), ignore)
    (target,) = result.targets
    assert (target.expected, target.verdict.accuracy, target.accuracy_holds) == (None, None, True)
    assert target.verdict.ratio is not None
    assert result.holds
