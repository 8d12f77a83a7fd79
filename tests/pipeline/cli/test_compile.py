"""``lathe compile``: made and compared for real, with times that are made up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from devices.target import Target
from pipeline.bundle import CompileOrigin, read_bundle, read_test
from pipeline.cli.compile.text import said
from pipeline.compile import Fate, Row, find_variant
from pipeline.target_verdict import artifact_accuracy
from tests.pipeline.cli.conftest import Lathe
from tests.pipeline.compile.finished_models import made_up_rounds, save_classifier

BASE, INT8 = "onnxruntime:fp32", "onnxruntime:int8-u8s8-minmax"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    known = tuple(find_variant(name) for name in (BASE, INT8))
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: known)
    rounds = made_up_rounds({BASE: 200, INT8: 50})
    monkeypatch.setattr("pipeline.compile.race.measure_round", rounds)


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """Arguments: a model, and images with the labels that it gives."""
    model = save_classifier(tmp_path / "net.onnx")
    images = np.random.default_rng(1).integers(0, 256, (120, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "data.npz", x=images, y=outputs_of(images, model).argmax(axis=1))
    return ["net.onnx", "--target", "host/onnxruntime@1", "--data", "data.npz", "--mean", "0.5"]


def outputs_of(images: np.ndarray, model: Path) -> np.ndarray:
    """Of images that are fed with a mean of 0.5."""
    session = onnxruntime.InferenceSession(model)
    inputs = (images / np.float32(255) - np.float32(0.5)).transpose(0, 3, 1, 2).astype(np.float32)
    return np.concatenate([session.run(None, {"image": row[None]})[0] for row in inputs])


@pytest.mark.slow
def test_the_choice_becomes_a_bundle_whose_accuracy_is_that_of_the_artifact(
    lathe: Lathe, given: list[str], tmp_path: Path
) -> None:
    code, output, _ = lathe("compile", *given, "--max-drop", "50", "--out", "bundle", "--json")
    document = json.loads(output)
    assert code == 0
    (target,) = document["targets"]
    assert target["chosen"] == INT8
    rows = {row["name"]: row for row in target["variants"]}
    assert rows[INT8]["ratio"]["value"] == pytest.approx(0.25, abs=0.01)
    assert Path(rows[INT8]["file"]).is_file()
    # The convolution and the product, each alone in int8.
    layers = target["sensitivity"]["onnx"]
    assert {layer["kind"] for layer in layers} <= {"Conv", "MatMul", "Gemm"}
    assert [layer["ratio_db"] for layer in layers] == sorted(layer["ratio_db"] for layer in layers)
    _, text, _ = lathe("compile", *given, "--max-drop", "50")
    worst = f"{layers[0]['name']} {layers[0]['ratio_db']:.0f} dB"
    assert f"sensitive    alone in int8, signal over noise of the outputs, onnx: {worst}" in text

    manifest = read_bundle(tmp_path / "bundle")
    assert isinstance(manifest.origin, CompileOrigin)
    assert manifest.origin.choice == target["reason"]
    assert manifest.origin.model == "net.onnx"
    (entry,) = manifest.targets
    assert entry.target == "host/onnxruntime:int8@1"
    assert entry.artifact_digest == rows[INT8]["digest"]
    assert entry.accuracy is not None
    assert entry.accuracy.share == rows[INT8]["quality"]["accuracy"]
    images = read_test(tmp_path / "bundle", manifest, entry)
    assert images is not None
    counted = artifact_accuracy(tmp_path / "bundle" / entry.artifact, images, Target.parse(entry.target))
    assert counted.correct == entry.accuracy.correct

    code, output, _ = lathe("compile", *given, "--max-drop", "50", "--json")
    assert (code, json.loads(output)["cached"]) == (0, True)
    code, output, _ = lathe("compile", *given, "--max-drop", "50")
    assert code == 0
    assert f"choice       {target['reason']}" in output
    assert "nothing was new" in output


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multi-label", "regression", "embedding"])
def test_every_task_is_compiled_by_its_own_metric_which_the_script_finds_again(
    task: str, lathe: Lathe, given: list[str], tmp_path: Path
) -> None:
    arrays = dict(np.load("data.npz"))
    outputs = outputs_of(arrays["x"], Path("net.onnx"))
    noise = np.random.default_rng(2).standard_normal(outputs.shape)
    labels = {
        "multi-label": (outputs + noise > np.median(outputs, axis=0)).astype(np.uint8),
        "regression": outputs + 0.3 * noise * outputs.std(axis=0),
        "embedding": arrays["y"],
    }
    np.savez("data.npz", x=arrays["x"], y=labels[task])
    words = ["compile", *given, "--task", task, "--max-drop", "20", "--out", "bundle"]
    code, output, messages = lathe(*words, "--json")
    document = json.loads(output)
    assert code == 0, messages
    assert document["samples"]["task"] == task
    metric = document["samples"]["metric"]
    (target,) = document["targets"]
    assert target["chosen"] == INT8, target["reason"]
    assert f"points of {metric} (20 may be lost)" in target["reason"]
    chosen = next(row for row in target["variants"] if row["name"] == INT8)
    (entry,) = read_bundle(tmp_path / "bundle").targets
    assert entry.accuracy is not None
    assert entry.accuracy.metric == metric
    assert entry.accuracy.share == chosen["quality"]["accuracy"]
    assert 0.1 < entry.accuracy.share < 1
    script = [sys.executable, "-I", "bundle/infer_onnxruntime.py"]
    done = subprocess.run([*script, "--test"], capture_output=True, text=True, check=True)
    assert (found := json.loads(done.stdout))["value"] == entry.accuracy.share
    assert found["metric"] == metric
    assert metric in lathe(*words[:-2])[1]


@pytest.mark.slow
def test_a_finished_answer_loads_nothing_that_makes_one(
    lathe: Lathe, given: list[str], tmp_path: Path
) -> None:
    assert lathe("compile", *given)[0] == 0
    code = (
        f"import sys; sys.argv = {['lathe', 'compile', *given]}; import atexit\n"
        "from pipeline.compile.place import *; import pipeline.compile.place as place\n"
        f"place.known_variants = lambda known=place.known_variants: tuple(v for v in known() if v.name in "
        f"{(BASE, INT8)})\n"
        "atexit.register(lambda: print(*sys.modules))\n"
        "from pipeline.cli.main import main; main()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert "nothing was new" in answer
    makers = {"torch", "onnx", "onnxruntime", "openvino", "scipy", "PIL", "sqlalchemy", "plotly", "cyclonedx"}
    assert not makers & set(answer.splitlines()[-1].split())


@pytest.mark.slow
def test_a_database_that_cannot_be_used_is_told_before_anything_is_made(
    lathe: Lathe, given: list[str], tmp_path: Path
) -> None:
    (tmp_path / "broken.db").write_text("no database" * 1000)
    code, _, messages = lathe("compile", *given, "--db", "broken.db")
    assert (code, "broken.db" in messages) == (8, True), messages
    assert not list((tmp_path / "lathe-work" / "stages").glob("variant-*"))


@pytest.mark.slow
def test_a_budget_that_nothing_keeps_ends_with_its_code_and_shows_the_table(
    lathe: Lathe, given: list[str]
) -> None:
    code, output, _ = lathe("compile", *given[:3], "--budget-ms", "0.01")
    assert code == 11
    assert "no variant keeps 0.01 ms" in output


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--mean", "a,b"], 2, "no list of numbers"),
        (["--std", "0"], 2, "do not fit together"),
        (["--mean", "0,0,0", "--std", "1,1"], 2, "do not fit together"),
        (["--std", "nan"], 2, "do not fit together"),
        (["--max-drop", "nan"], 2, "Invalid value"),
        (["--budget-ms", "nan"], 2, "Invalid value"),
        (["--input-shape", "3x-1"], 2, "no shape"),
        (["--input-shape", "3x²"], 2, "no shape"),
        (["--argument", "depth"], 2, "cannot be understood"),
        (["--weights", "weights.pt"], 10, "takes no weights"),
        (["--weights-key", "ema"], 2, "--weights-key 'ema' is of no file"),
        (["--data", "nowhere"], 3, "there are no data"),
        (["--target", "nowhere"], 6, "no device"),
    ],
)
def test_what_cannot_be_understood_ends_with_its_code(
    more: list[str], code: int, said: str, lathe: Lathe, tmp_path: Path
) -> None:
    save_classifier(tmp_path / "net.onnx")
    found, _, messages = lathe("compile", "net.onnx", "--target", "host/onnxruntime@1", *more)
    assert (found, said in messages) == (code, True), messages


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ("host/onnxruntime@1", 9, "it exists and is not a bundle"),
        ("host/tensorrt", 6, "there is no inference script for the runtime 'tensorrt'"),
    ],
)
def test_what_keeps_a_bundle_from_being_written_is_told_before_anything_is_made(
    target: str, code: int, said: str, lathe: Lathe, tmp_path: Path
) -> None:
    save_classifier(tmp_path / "net.onnx")
    if code == 9:
        (tmp_path / "bundle").mkdir()
    found, _, messages = lathe("compile", "net.onnx", "--target", target, "--out", "bundle")
    assert (found, said in messages) == (code, True), messages
    assert not (tmp_path / "lathe-work").exists()


@pytest.mark.slow
def test_choices_that_run_on_the_same_target_are_one_target_of_the_bundle(
    lathe: Lathe, given: list[str], tmp_path: Path
) -> None:
    words = ["compile", *given, "--target", "host@1", "--max-drop", "50", "--out", "bundle", "--json"]
    code, output, messages = lathe(*words)
    assert code == 0, messages
    raced = json.loads(output)["targets"]
    assert [each["target"] for each in raced] == ["host/onnxruntime@1", "host@1"]
    assert [each["chosen"] for each in raced] == [INT8, INT8]
    manifest = read_bundle(tmp_path / "bundle")
    assert [each.target for each in manifest.targets] == ["host/onnxruntime:int8@1"]


@pytest.mark.slow
def test_what_was_found_is_shown_where_the_bundle_cannot_be_written(lathe: Lathe, given: list[str]) -> None:
    Path("file").write_bytes(b"")
    words = ["compile", *given[:3], "--out", "file/bundle"]
    code, output, messages = lathe(*words)
    assert code == 9
    assert f"choice       nothing is faster than {BASE}" in output
    assert "bundle       cannot write" in output
    assert "error: cannot write" in messages
    code, output, _ = lathe(*words, "--json")
    document = json.loads(output)
    assert code == document["bundle"]["error"]["exit_code"] == 9
    assert document["targets"][0]["chosen"] == BASE


@pytest.mark.slow
def test_the_script_gives_the_probabilities_of_a_network_that_ends_in_softmax(
    lathe: Lathe, given: list[str], tmp_path: Path
) -> None:
    model = onnx.load("net.onnx")
    (end,) = model.graph.output
    model.graph.node.append(onnx.helper.make_node("Softmax", [end.name], ["shares"], axis=1))
    end.name = "shares"
    onnx.save(model, "net.onnx")
    given[2] = "host/onnxruntime:fp32@1"
    assert lathe("compile", *given, "--out", "bundle")[0] == 0
    image = np.load("data.npz")["x"][:1]
    np.save("image.npy", image)
    script = [sys.executable, "-I", "bundle/infer_onnxruntime.py", "image.npy"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    shares = outputs_of(image, tmp_path / "net.onnx")
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    assert json.loads(done.stdout)["probability"] == pytest.approx(float(shares.max()), abs=1e-6)


def test_what_became_of_a_variant_is_never_cut_within_a_word() -> None:
    def row(fate: Fate, why: str) -> Row:
        return Row("a", "a", "host/onnxruntime@1", fate, why)

    assert said(row(Fate.FAILED, "no\n  such kernel")) == "failed no such kernel"
    assert said(row(Fate.MEASURED, "")) == ""
    cut = said(row(Fate.MEASURED, "disturbed " * 40))
    assert len(cut) <= 160
    assert set(cut.split()) == {"disturbed", "..."}
