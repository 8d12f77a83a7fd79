"""Whole networks: exported, compiled, and compared with torch on their targets."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from devices.digests import file_digest
from devices.errors import TargetError
from devices.requests.prediction import predict
from devices.target import Target
from pipeline.compile import compile_artifact
from pipeline.errors import ExportError, ParityError
from pipeline.export import flatbuffer
from pipeline.export.base import Format, format_of
from pipeline.export.network import export_network
from pipeline.export.parity import check_parity
from pipeline.spaces.mobile.space import MobileSpace

pytestmark = pytest.mark.usefixtures("exporters_here")

TARGETS = [Target("host", "onnxruntime"), Target("host", "litert")]
DIGITS = (load_digits().images[:40, None] / 16).astype(np.float32)


def network(space: MobileSpace) -> nn.Module:
    """The smallest member, with statistics of its own and logits of the size that training gives."""
    torch.manual_seed(5)
    model = space.build(space.extreme(lambda block: block.input_shape[0]))
    shape = (8, *space.input_shape)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.5)
    with torch.no_grad():
        model.train()(torch.rand(shape))
    return model.eval()


@pytest.fixture(scope="module", params=TARGETS, ids=str)
def built(request, tmp_path_factory):
    target = request.param
    model = network(MobileSpace.from_config(None, (1, 8, 8), 10)).train()
    path = tmp_path_factory.mktemp("export") / "deep" / f"student{format_of(target).suffix}"
    assert export_network(model, (1, 8, 8), format_of(target), path) == path
    assert model.training
    return target, model, path


def in_layout(images: np.ndarray, target: Target) -> np.ndarray:
    return images if target.runtime == "onnxruntime" else np.ascontiguousarray(images.transpose(0, 2, 3, 1))


@pytest.mark.slow
def test_export_and_compilation_keep_parity_with_torch_on_real_images(built, tmp_path):
    target, model, exported = built
    artifact = compile_artifact(exported, target, tmp_path)
    for path in (exported, artifact.path):
        parity = check_parity(model, path, artifact.format, DIGITS, target)
        assert parity.samples == len(DIGITS)
        assert parity.max_abs <= 1e-4
    assert model.training
    before, after = (predict(path, in_layout(DIGITS, target), target) for path in (exported, artifact.path))
    assert np.abs(before - after).max() <= 1e-5


@pytest.mark.slow
def test_check_parity_refuses_an_artifact_of_other_weights(built):
    target, _, exported = built
    other = network(MobileSpace.from_config(None, (1, 8, 8), 10))
    with torch.no_grad():
        other[-1].classifier.bias += 1
    with pytest.raises(ParityError, match="differs from torch"):
        check_parity(other, exported, format_of(target), DIGITS, target)


@pytest.mark.slow
def test_compile_artifact_gives_the_same_bytes_when_it_is_repeated(built, tmp_path):
    target, _, exported = built
    once, again = (compile_artifact(exported, target, tmp_path / name) for name in ("once", "again"))
    assert once.digest == again.digest == file_digest(once.path)
    assert once.path.name == exported.name
    assert dataclasses.replace(again, path=once.path) == once


@pytest.mark.slow
@pytest.mark.parametrize("built", TARGETS[:1], indirect=True, ids=str)
def test_onnx_artifact_is_optimised_and_stays_so_when_it_is_loaded_again(built, tmp_path):
    target, _, exported = built
    artifact = compile_artifact(exported, target, tmp_path)
    plain, optimised = (onnx.load(path).graph for path in (exported, artifact.path))
    assert len(optimised.node) < len(plain.node)
    assert artifact.notes["graph_optimization"] == "all"
    assert artifact.notes["cpu"] not in ("", "any")
    disabled = onnxruntime.SessionOptions()
    disabled.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions = [onnxruntime.InferenceSession(artifact.path, options) for options in (disabled, None)]
    outputs = [session.run(["logits"], {"input": DIGITS[:1]})[0] for session in sessions]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.slow
@pytest.mark.parametrize("built", TARGETS[:1], indirect=True, ids=str)
def test_onnx_artifact_is_portable_when_the_device_is_another_machine(built, tmp_path, monkeypatch):
    (tmp_path / "devices.toml").write_text('[devices.board]\nconnection = "ssh"\nhost = "board.local"\n')
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))
    _, _, exported = built
    artifact = compile_artifact(exported, Target("board", "onnxruntime"), tmp_path)
    assert artifact.notes["cpu"] == "any"
    assert "com.microsoft.nchwc" not in {node.domain for node in onnx.load(artifact.path).graph.node}


@pytest.mark.slow
@pytest.mark.parametrize("built", TARGETS[1:], indirect=True, ids=str)
def test_litert_artifact_is_one_channel_last_graph_without_metadata(built, tmp_path):
    target, _, exported = built
    model = flatbuffer.read(compile_artifact(exported, target, tmp_path).path.read_bytes())
    (graph,) = model.subgraphs
    assert list(graph.tensors[graph.inputs[0]].shape) == [1, 8, 8, 1]
    assert list(graph.tensors[graph.outputs[0]].shape) == [1, 10]
    assert model.metadata is None
    (signature,) = model.signatureDefs
    assert [entry.name for entry in (*signature.inputs, *signature.outputs)] == [b"input", b"logits"]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_export_network_scales_to_224_pixels(target, tmp_path):
    fmt = format_of(target)
    model = network(MobileSpace.from_config(None, (3, 224, 224), 5))
    path = export_network(model, (3, 224, 224), fmt, tmp_path / f"large{fmt.suffix}")
    images = np.random.default_rng(0).random((2, 3, 224, 224), np.float32)
    assert check_parity(model, path, fmt, images, target).max_abs <= 1e-4


def test_export_network_names_the_network_and_the_reason_when_it_cannot_be_exported(tmp_path):
    class Undecided(nn.Module):
        def forward(self, images):
            return images.flatten(1) if images.sum() > 0 else images.flatten(1) * 2

    with pytest.raises(ExportError, match="Undecided cannot be exported to onnx") as caught:
        export_network(Undecided(), (1, 4, 4), Format.ONNX, tmp_path / "undecided.onnx")
    assert "data-dependent" in caught.value.why
    assert caught.value.exit_code == 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize(
    "content", [b"", b"no model at all", b"\x1c\x00\x00\x00TFL3", b"\xff\xff\x00\x00TFL3" + bytes(40)]
)
def test_compile_artifact_refuses_a_file_that_is_no_model(target, content, tmp_path):
    exported = tmp_path / f"broken{format_of(target).suffix}"
    exported.write_bytes(content)
    with pytest.raises(ExportError):
        compile_artifact(exported, target, tmp_path / "compiled")
    assert list((tmp_path / "compiled").iterdir()) == []


def test_compile_artifact_refuses_a_runtime_that_nothing_is_exported_for(tmp_path):
    with pytest.raises(TargetError):
        compile_artifact(tmp_path / "a.engine", Target("orin", "tensorrt", "fp16"), tmp_path)
