"""The scripts in a bundle run by themselves and agree with the runtime that verified the artifact."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from devices.requests.prediction import predict
from devices.target import Target
from pipeline.bundle import BundleContent, read_bundle, write_bundle
from pipeline.bundle.writing import inference_script
from pipeline.target_verdict import LabelledImages, in_layout, verify_artifact
from tests.devices.npu import compile_for_npu, folder_of, openvino_as_litert_wants_it
from tests.devices.tiny_models import INPUTS, OUTPUTS, tiny_reference, write_tiny_tflite
from tests.pipeline.tiny_bundles import PREPROCESSING, PROTOCOL, make_split, save_onnx, weights


def infer(
    bundle: Path, runtime: str, *arguments: str, python: tuple[str, ...] = (sys.executable, "-I")
) -> subprocess.CompletedProcess[str]:
    script = str(bundle / f"infer_{runtime}.py")
    return subprocess.run(
        [*python, script, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=bundle.parent,
        check=False,
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", make_split().images)
    return tmp_path / "images.npy"


def assert_agrees(bundle: Path, number: int, content: BundleContent, output: str) -> None:
    manifest = read_bundle(bundle)
    entry = manifest.targets[number]
    layout, classifier = entry.inputs[0].layout, content.classifier
    assert layout == "NCHW" or layout == "NHWC"
    assert classifier is not None
    inputs = in_layout(classifier.preprocessing(make_split().images), layout)
    logits = predict(bundle / entry.artifact, inputs, Target.parse(entry.target)).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = [json.loads(line) for line in output.splitlines()]
    assert [answer["image"] for answer in answers] == list(range(len(inputs)))
    assert [answer["index"] for answer in answers] == logits.argmax(axis=1).tolist()
    assert [answer["label"] for answer in answers] == [classifier.labels[k] for k in logits.argmax(axis=1)]
    np.testing.assert_allclose([a["probability"] for a in answers], shares.max(axis=1), atol=1e-6)


def test_infer_onnxruntime_agrees_with_predict(
    own_bundle: Path, bundle_content: BundleContent, images: Path
) -> None:
    done = infer(own_bundle, "onnxruntime", str(images), "--threads", "2")
    assert done.returncode == 0, done.stderr
    assert_agrees(own_bundle, 0, bundle_content, done.stdout)
    read_bundle(own_bundle)


@pytest.mark.slow
def test_infer_litert_agrees_with_predict(
    litert_content: BundleContent, images: Path, tmp_path: Path
) -> None:
    bundle = write_bundle(litert_content, tmp_path / "bundle")
    done = infer(bundle, "litert", str(images))
    assert done.returncode == 0, done.stderr
    assert_agrees(bundle, 1, litert_content, done.stdout)
    picture(0).save(tmp_path / "photo.png")
    photo = infer(bundle, "litert", str(tmp_path / "photo.png"))
    assert json.loads(photo.stdout)["probability"] == json.loads(done.stdout.splitlines()[0])["probability"]


@pytest.mark.slow
def test_infer_litert_runs_on_an_npu_what_was_compiled_for_it(tmp_path: Path) -> None:
    libraries = openvino_as_litert_wants_it(tmp_path / "openvino")
    model = write_tiny_tflite(tmp_path / "tiny.tflite")
    compiled = compile_for_npu(model, tmp_path / "npu.tflite", libraries)
    # LiteRT by itself takes the library of the first maker, which is not the file's.
    vendors = tmp_path / "vendors"
    (vendors / "google_tensor" / "dispatch").mkdir(parents=True)
    (vendors / "google_tensor" / "dispatch" / "libLiteRtDispatch_GoogleTensor.so").touch()
    (vendors / "intel_openvino").symlink_to(folder_of("ai_edge_litert") / "vendors" / "intel_openvino")
    (tmp_path / "infer.py").write_text(inference_script("litert"))
    outputs = [{"shape": [1, OUTPUTS], "dtype": "float32"}]
    settings = {"delegate": "npu", "precision": "fp16", "threads": 1, "outputs": outputs}
    program = (
        f"import infer, numpy, pathlib; infer.vendors = lambda: pathlib.Path({str(vendors)!r}); "
        f"predict = infer.load_model({str(compiled)!r}, {settings}); "
        f"print(predict([numpy.ones((1, {INPUTS}), numpy.float32)])[0].tolist())"
    )
    # The loader of libraries reads it when a process starts.
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    expected = tiny_reference(np.ones((1, INPUTS), np.float32))
    # OpenVINO may compute in bfloat16.
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=0.1)


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_infer_finds_exactly_the_accuracy_of_the_manifest_again(
    number: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    content = request.getfixturevalue("litert_content" if number else "bundle_content")
    bundle = write_bundle(content, tmp_path / "bundle")
    stated = read_bundle(bundle).targets[number].accuracy
    assert stated is not None
    done = infer(bundle, ("onnxruntime", "litert")[number], "--test")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen == {
        "metric": "accuracy",
        "value": stated.share,
        "correct": stated.correct,
        "total": stated.total,
    }


def save_for_torch(path: Path) -> Path:
    """The tiny classifier as an exported program, or as a program of ExecuTorch."""
    import torch

    class Tiny(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.flatten(1) @ torch.from_numpy(weights())

    program = torch.export.export(Tiny().eval(), (torch.zeros(1, 1, 4, 4),))
    if path.suffix == ".pt2":
        torch.export.save(program, path)
    else:
        from executorch.exir import to_edge

        path.write_bytes(to_edge(program).to_executorch().buffer)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "name"), [("openvino", "a.onnx"), ("executorch", "a.pte"), ("torch", "a.pt2")]
)
def test_infer_finds_the_accuracy_again_by_every_other_runtime(
    bundle_content: BundleContent, tmp_path: Path, quiet_machine: None, runtime: str, name: str
) -> None:
    artifact = tmp_path / name
    (save_onnx if artifact.suffix == ".onnx" else save_for_torch)(artifact)
    (given,) = bundle_content.targets
    test = LabelledImages(make_split(), PREPROCESSING, "NCHW")
    verdict = verify_artifact(
        artifact, test, Target("host", runtime), budget=None, reference=None, protocol=PROTOCOL
    )
    target = replace(given, artifact=artifact, portable=artifact, reference=None, verdict=verdict)
    bundle = write_bundle(replace(bundle_content, targets=(target,)), tmp_path / "bundle")
    stated = read_bundle(bundle).targets[0].accuracy
    assert stated is not None
    done = infer(bundle, runtime, "--test")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen == {
        "metric": "accuracy",
        "value": stated.share,
        "correct": stated.correct,
        "total": stated.total,
    }
    assert seen["correct"] == 11


def test_infer_runs_a_model_that_is_no_classifier(compiled_content: BundleContent, tmp_path: Path) -> None:
    bundle = write_bundle(compiled_content, tmp_path / "bundle")
    left, right = np.array([[-1, 2]], np.float32), np.array([[3, 5]], np.float32)
    np.savez(tmp_path / "pair.npz", right=right, left=left)
    done = infer(bundle, "onnxruntime", str(tmp_path / "pair.npz"))
    assert done.returncode == 0, done.stderr
    expected = {"difference": [[-4.0, -3.0]], "size": [[1.0, 2.0]]}
    assert json.loads(done.stdout) == {"file": str(tmp_path / "pair.npz"), "outputs": expected}


def test_infer_says_which_tensors_a_model_takes(compiled_content: BundleContent, tmp_path: Path) -> None:
    bundle = write_bundle(compiled_content, tmp_path / "bundle")
    np.save(tmp_path / "one.npy", np.zeros((1, 2), np.float32))
    refused(infer(bundle, "onnxruntime", str(tmp_path / "one.npy")), "the inputs of this model: left, right")
    np.savez(tmp_path / "odd.npz", left=np.zeros((1, 2)), right=np.zeros((1, 2), np.float32))
    refused(
        infer(bundle, "onnxruntime", str(tmp_path / "odd.npz")), "left is float64 (1, 2); this model takes"
    )
    refused(infer(bundle, "onnxruntime", "--test"), "this bundle has no test images")


def change_target(bundle: Path, **changes: str) -> None:
    """What the manifest says of the first target; the scripts read it without checking its digest."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["targets"][0] |= changes
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_infer_refuses_to_run_elsewhere_than_measured(own_bundle: Path, images: Path) -> None:
    change_target(own_bundle, target="host/onnxruntime:fp32+cann@1", delegate="CANNExecutionProvider")
    done = infer(own_bundle, "onnxruntime", str(images))
    refused(done, "the model was measured on CANNExecutionProvider, and this ONNX Runtime has only")


def test_infer_keeps_to_the_cores_of_the_target(own_bundle: Path, images: Path) -> None:
    change_target(own_bundle, target="host/onnxruntime:fp32+cores=0@1")
    assert infer(own_bundle, "onnxruntime", str(images)).returncode == 0
    change_target(own_bundle, target="host/onnxruntime:fp32+cores=9000@1")
    refused(infer(own_bundle, "onnxruntime", str(images)), "measured on cores 9000")


def test_infer_shows_its_help_without_the_model(own_bundle: Path) -> None:
    (own_bundle / "manifest.json").unlink()
    done = infer(own_bundle, "onnxruntime", "--help")
    assert done.returncode == 0
    assert "FILE" in done.stdout


def test_infer_refuses_a_model_that_was_changed(own_bundle: Path, images: Path) -> None:
    model = own_bundle / read_bundle(own_bundle).targets[0].artifact
    model.write_bytes(model.read_bytes() + b"\0")
    refused(infer(own_bundle, "onnxruntime", str(images)), "is not the file that was verified")


def test_infer_names_the_target_that_the_bundle_lacks(own_bundle: Path, images: Path) -> None:
    done = infer(own_bundle, "onnxruntime", str(images), "--target", "host/onnxruntime:int8@1")
    refused(done, "it has: host/onnxruntime:fp32@1")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 4, 4, 1), np.float32),
        np.zeros((2, 5, 4, 1), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((), np.uint8),
    ],
)
def test_infer_says_what_images_it_takes(own_bundle: Path, tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "odd.npy", array)
    refused(infer(own_bundle, "onnxruntime", str(tmp_path / "odd.npy")), "this model takes uint8")


def test_infer_refuses_pickled_and_missing_images(own_bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    done = infer(own_bundle, "onnxruntime", str(tmp_path / "pickled.npy"))
    refused(done, "holds something else than plain numbers")
    assert "allow_pickle" not in done.stderr
    refused(infer(own_bundle, "onnxruntime", str(tmp_path / "none.npy")), "none.npy")


def picture(number: int) -> Image.Image:
    """A test image of the bundle, as a file's content is."""
    pixels = make_split().images[number]
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def test_infer_reads_image_files_and_names_the_likeliest_labels(
    own_bundle: Path, images: Path, tmp_path: Path
) -> None:
    files = [tmp_path / "photo.PNG", tmp_path / "second.bmp"]
    for number, file in enumerate(files):
        picture(number).save(file)
    arrays = infer(own_bundle, "onnxruntime", str(images))
    done = infer(own_bundle, "onnxruntime", *map(str, files), "--top", "2")
    assert done.returncode == 0, done.stderr
    expected = [json.loads(line) for line in arrays.stdout.splitlines()[:2]]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == list(map(str, files))
    for answer, other in zip(answers, expected, strict=True):
        assert (answer["label"], answer["probability"]) == (other["label"], other["probability"])
        first, second = answer["top"]
        assert first == {key: answer[key] for key in ("label", "index", "probability")}
        assert first["probability"] >= second["probability"]


@pytest.mark.parametrize("level", [255, 0])
def test_infer_turns_a_photograph_upright_and_shows_it_over_the_background_of_the_training_images(
    bundle_content: BundleContent, tmp_path: Path, level: int
) -> None:
    assert bundle_content.classifier is not None
    over = replace(bundle_content.classifier, background=(level, level, level))
    content = replace(bundle_content, classifier=over)
    own_bundle = write_bundle(content, tmp_path / "bundle")
    plain = picture(0)
    plain.save(tmp_path / "plain.png")
    orientation = Image.Exif()
    orientation[0x0112] = 3
    plain.rotate(180).save(tmp_path / "turned.png", exif=orientation)
    pixels = np.asarray(plain.convert("RGBA")).copy()
    pixels[:2, :2] = (120, 120, 120, 0)
    Image.fromarray(pixels).save(tmp_path / "holes.png")
    pixels[:2, :2] = (level, level, level, 255)
    Image.fromarray(pixels).convert(plain.mode).save(tmp_path / "filled.png")
    names = ("plain.png", "turned.png", "holes.png", "filled.png")
    done = infer(own_bundle, "onnxruntime", *(str(tmp_path / name) for name in names))
    upright, turned, holes, filled = (json.loads(line)["probability"] for line in done.stdout.splitlines())
    assert upright == turned
    assert holes == filled


def test_infer_says_what_a_photograph_needs_when_pillow_is_missing(own_bundle: Path, tmp_path: Path) -> None:
    picture(0).save(tmp_path / "photo.png")
    script = own_bundle / "infer_onnxruntime.py"
    program = f"import sys, runpy; sys.modules['PIL'] = None; sys.argv = [{str(script)!r}, 'photo.png']; "
    run = f"runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program + run], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    refused(done, "image files need Pillow: python -m pip install pillow")


def test_infer_names_a_file_that_is_no_image(own_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("<html>404</html>")
    done = infer(own_bundle, "onnxruntime", str(tmp_path / "notes.jpg"))
    refused(done, "notes.jpg cannot be read as an image")
    assert "allow_pickle" not in done.stderr


@pytest.mark.parametrize("channels", [2, 4])
def test_infer_refuses_a_picture_for_a_model_of_other_channels(
    own_bundle: Path, tmp_path: Path, channels: int
) -> None:
    manifest = json.loads((own_bundle / "manifest.json").read_text())
    manifest["classifier"]["image"]["channels"] = channels
    (own_bundle / "manifest.json").write_text(json.dumps(manifest))
    picture(0).save(tmp_path / "seen.png")
    done = infer(own_bundle, "onnxruntime", str(tmp_path / "seen.png"))
    refused(done, f"this model takes images of {channels} channels, which no image file has")


def test_infer_takes_either_files_or_the_test_images(own_bundle: Path, images: Path) -> None:
    for arguments in ((), (str(images), "--test")):
        done = infer(own_bundle, "onnxruntime", *arguments)
        assert done.returncode == 2
        assert "give either files or --test" in done.stderr


def test_infer_refuses_no_threads(own_bundle: Path, images: Path) -> None:
    done = infer(own_bundle, "onnxruntime", str(images), "--threads", "0")
    assert done.returncode == 2
    assert "--threads must be 1 or more" in done.stderr


def test_infer_names_the_package_when_numpy_is_missing(own_bundle: Path, images: Path) -> None:
    done = infer(own_bundle, "onnxruntime", str(images), python=(sys.executable, "-I", "-S"))
    refused(done, "numpy cannot be imported")


def test_infer_ends_quietly_when_nobody_reads_on(own_bundle: Path, images: Path) -> None:
    shell = shutil.which("sh")
    assert shell is not None
    done = subprocess.run(
        [
            shell,
            "-c",
            '"$0" -I "$1" "$2" | head -n 1',
            sys.executable,
            "bundle/infer_onnxruntime.py",
            str(images),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=own_bundle.parent,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


def refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not done.stdout
