"""Real, tiny bundles: one layer that tells images apart by where they are bright, verified on this host.

The conftest files of the rooms that need them import the fixtures."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices.digests import file_digest
from devices.measurement.protocol import MeasuringProtocol
from devices.target import Target
from latency_db.estimate import Estimate
from pipeline.budget import Budget
from pipeline.bundle import (
    BundleContent,
    ClassifierContent,
    CompileContent,
    RunContent,
    RunOrigin,
    TargetContent,
    TensorDescription,
    read_bundle,
    read_test,
    read_verdict,
    write_bundle,
)
from pipeline.data.base import Preprocessing, Split
from pipeline.target_verdict import LabelledImages, TargetVerdict, verify_artifact
from tests.quiet_machine import be_quiet

PREPROCESSING = Preprocessing((0.4,), (0.25,))
LABELS = ("top", "bottom", "neither, or <b>both</b>")
LOGITS = TensorDescription(name="logits", shape=(1, 3), layout="NK")
PROTOCOL = MeasuringProtocol(launches=3, max_launches=0, min_ns=1_000_000, warmup_ns=1_000_000)


def weights() -> np.ndarray:
    rows = np.zeros((16, 3), np.float32)
    rows[:8, 0] = rows[8:, 1] = 0.5
    return rows


def save_onnx(path: Path, repeat: int = 1, work: int = 0) -> Path:
    """A linear classifier of (1, 1, 4, 4) images; ``repeat`` adds operators that change nothing, and ``work``
    pairs of operators that take time."""
    nodes = [helper.make_node("Flatten", ["input"], ["flat0"])]
    nodes += [
        helper.make_node("Identity", [f"flat{number}"], [f"flat{number + 1}"]) for number in range(repeat - 1)
    ]
    last = f"flat{repeat - 1}"
    for number in range(work):
        nodes.append(helper.make_node("Sin", [last], [f"sine{number}"]))
        nodes.append(helper.make_node("Asin", [f"sine{number}"], [f"work{number}"]))
        last = f"work{number}"
    nodes.append(helper.make_node("MatMul", [last, "weights"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 1, 4, 4))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 3))],
        [numpy_helper.from_array(weights(), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def make_split(count: int = 12) -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 120, (count, 4, 4, 1), np.uint8)
    labels = np.arange(count, dtype=np.int64) % 2
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 130
    labels[-1] = 2
    return Split(images, labels)


def _verified(*given: Any, **settings: Any) -> TargetVerdict:
    """As on a machine that does nothing else: what the tests forge is what a bundle ships."""
    with pytest.MonkeyPatch.context() as patch:
        be_quiet(patch.setattr)
        return verify_artifact(*given, **settings)


@pytest.fixture(scope="session")
def bundle_content(tmp_path_factory: pytest.TempPathFactory) -> BundleContent:
    folder = tmp_path_factory.mktemp("content")
    artifact, reference = save_onnx(folder / "student.onnx"), save_onnx(folder / "reference.onnx", 3)
    split = make_split()
    verdict = _verified(
        artifact,
        LabelledImages(split, PREPROCESSING, "NCHW"),
        Target.parse("host/onnxruntime:fp32@1"),
        budget=Budget.parse("500x"),
        reference=reference,
        protocol=PROTOCOL,
    )
    report = folder / "report.html"
    report.write_text("<!DOCTYPE html><title>report</title>")
    target = TargetContent(
        artifact=artifact,
        runs_on="this processor",
        portable=save_onnx(folder / "portable.onnx"),
        reference=reference,
        inputs=(TensorDescription(name="input", shape=(1, 1, 4, 4), layout="NCHW"),),
        outputs=(LOGITS,),
        predicted=Estimate(4_000.0, 5_000.0, 6_000.0, 0.9),
        verdict=verdict,
    )
    return BundleContent(
        name="tiny",
        origin=RunContent(
            teacher_digest="ab" * 32,
            teacher_accuracy=1.0,
            student_architecture="one layer",
            student_accuracy=11 / 12,
            recipe='name = "tiny"\n',
            report=report,
        ),
        targets=(target,),
        classifier=ClassifierContent(
            image_shape=(4, 4, 1),
            preprocessing=PREPROCESSING,
            background=(255, 255, 255),
            labels=LABELS,
            test=split,
        ),
        versions={"onnxruntime": "1"},
    )


@pytest.fixture(scope="session")
def compiled_content(tmp_path_factory: pytest.TempPathFactory) -> BundleContent:
    """Of a model that was only compiled: no recipe, teacher, budget, images or labels, and two inputs."""
    folder = tmp_path_factory.mktemp("compiled")
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["left", "right"], ["difference"]),
            helper.make_node("Abs", ["left"], ["size"]),
        ],
        "two",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2)) for name in ("left", "right")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2)) for name in ("difference", "size")],
    )
    model = folder / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), model)
    target = Target.parse("host/onnxruntime:fp32@1")
    pair, named = (1, 2), TensorDescription
    content = TargetContent(
        artifact=model,
        runs_on="any",
        portable=model,
        reference=model,
        inputs=(named(name="left", shape=pair), named(name="right", shape=pair)),
        outputs=(named(name="difference", shape=pair), named(name="size", shape=pair)),
        predicted=None,
        verdict=_verified(model, None, target, budget=None, reference=model, protocol=PROTOCOL),
    )
    origin = CompileContent(
        "two.onnx", model, "it is the only variant", {"variants": [{"name": "fp32"}]}, None
    )
    return BundleContent("two", origin, (content,), None, {"onnxruntime": "1"})


@pytest.fixture(scope="session")
def written_bundle(bundle_content: BundleContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that no test may change."""
    return write_bundle(bundle_content, tmp_path_factory.mktemp("written") / "bundle")


@pytest.fixture
def own_bundle(written_bundle: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(written_bundle, tmp_path / "bundle"))


def with_program(content: BundleContent, folder: Path, *, as_reference: bool = False) -> BundleContent:
    """The same for PyTorch, with a program as the artifact, or as what it is compared with."""
    (target,) = content.targets
    program = folder / "model.pt2"
    program.write_bytes(b"a program")
    artifact = target.artifact if as_reference else program
    digest = file_digest(artifact)
    verdict = dataclasses.replace(target.verdict, target="host/torch:fp32@1", artifact_digest=digest)
    reference = program if as_reference else None
    other = dataclasses.replace(target, artifact=artifact, reference=reference, verdict=verdict)
    return dataclasses.replace(content, targets=(other,))


@pytest.fixture
def litert_content(bundle_content: BundleContent, tmp_path: Path) -> BundleContent:
    """The same with a LiteRT artifact that takes channel-last images."""
    litert_torch = pytest.importorskip("litert_torch")
    import torch

    class Tiny(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.flatten(1) @ torch.from_numpy(weights())

    artifact = tmp_path / "student.tflite"
    litert_torch.convert(Tiny().eval(), (torch.zeros(1, 4, 4, 1),)).export(str(artifact))
    verdict = _verified(
        artifact,
        LabelledImages(make_split(), PREPROCESSING, "NHWC"),
        Target.parse("host/litert:fp32@1"),
        budget=Budget.parse("500ms"),
        reference=None,
        protocol=PROTOCOL,
    )
    image = TensorDescription(name="args_0", shape=(1, 4, 4, 1), layout="NHWC")
    logits = LOGITS.model_copy(update={"name": "output_0"})
    target = TargetContent(artifact, "any", artifact, None, (image,), (logits,), None, verdict)
    return dataclasses.replace(bundle_content, targets=(*bundle_content.targets, target))


def content_of(bundle: Path) -> BundleContent:
    """What a bundle of a run was written from."""
    manifest = read_bundle(bundle)
    origin, classifier = manifest.origin, None
    assert isinstance(origin, RunOrigin)
    if manifest.classifier is not None:
        image = manifest.classifier.image
        test = read_test(bundle, manifest, manifest.targets[0])
        classifier = ClassifierContent(
            image_shape=(image.height, image.width, image.channels),
            preprocessing=manifest.classifier.preprocessing.build(),
            background=image.background,
            labels=manifest.classifier.labels,
            test=None if test is None else test.split,
        )
    targets = []
    for entry in manifest.targets:
        predicted = entry.predicted
        targets.append(
            TargetContent(
                artifact=bundle / entry.artifact,
                runs_on=entry.artifact_runs_on,
                portable=bundle / entry.portable,
                reference=bundle / entry.reference if entry.reference else None,
                inputs=entry.inputs,
                outputs=entry.outputs,
                predicted=predicted
                and Estimate(predicted.low_ns, predicted.value_ns, predicted.high_ns, predicted.coverage),
                verdict=read_verdict(bundle, entry),
            )
        )
    made = RunContent(
        origin.teacher.digest,
        origin.teacher.accuracy,
        origin.student.architecture,
        origin.student.accuracy,
        (bundle / origin.recipe).read_text(),
        bundle / origin.report,
    )
    return BundleContent(manifest.name, made, tuple(targets), classifier, manifest.versions)
