"""Joint export of many modules, against their single exports and against torch."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from devices.measurement.measurement import Reason
from devices.requests.prediction import predict
from devices.target import Target
from pipeline.errors import ExportError
from pipeline.export import flatbuffer
from pipeline.export.base import Format
from pipeline.export.blocks import export_modules
from pipeline.export.conversion import convert
from pipeline.spaces.mobile.space import MobileSpace
from tests.exporters_here import export_here

TARGETS = {Format.ONNX: Target("host", "onnxruntime"), Format.LITERT: Target("host", "litert")}


class Unsupported(nn.Module):
    def forward(self, features):
        return torch.special.bessel_j0(features)


class DataDependent(nn.Module):
    def forward(self, features):
        return features * 2 if features.sum() > 0 else features


class TwoTensors(nn.Module):
    def forward(self, features):
        return features, features + 1


def good_modules():
    torch.manual_seed(3)
    space = MobileSpace.from_config(None, (1, 8, 8), 10)
    by_kind = {block.kind: block for block in space.distinct_blocks()}
    gated = next(
        block
        for block in space.distinct_blocks()
        if block.kind == "mbconv" and dict(block.arguments)["squeeze_excite"]
    )
    blocks = {"stem": by_kind["stem"], "gated": gated, "head": by_kind["head"]}
    modules = {name: (space.build_block(block), block.input_shape) for name, block in blocks.items()}
    # Statistics that are not those of a fresh layer, so that wrong folding would show.
    for module, _ in modules.values():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.5, 0.5)
                nn.init.uniform_(layer.running_var, 0.5, 2)
    return {**modules, "identity": (nn.Identity(), (2, 4, 4))}


BAD = {"unsupported": Unsupported(), "data-dependent": DataDependent(), "two-tensors": TwoTensors()}
GOOD = good_modules()


@pytest.fixture(scope="module", params=TARGETS, ids=str)
def exported(request, tmp_path_factory):
    modules = {**{name: (module, (2, 4, 4)) for name, module in BAD.items()}, **GOOD}
    folder = tmp_path_factory.mktemp("blocks")
    return request.param, export_modules(modules, request.param, folder)


def operators(fmt: Format, data: bytes) -> list[str]:
    if fmt is Format.ONNX:
        return [node.op_type for node in onnx.load_model_from_string(data).graph.node]
    model = flatbuffer.read(data)
    return [str(model.operatorCodes[op.opcodeIndex].builtinCode) for op in model.subgraphs[0].operators]


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
def test_export_modules_gives_files_that_answer_like_torch(exported, name):
    fmt, files = exported
    module, shape = GOOD[name]
    inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module.eval()(inputs)
    fed = inputs if fmt is Format.ONNX else inputs.permute(0, 2, 3, 1)
    if fmt is Format.LITERT and expected.dim() == 4:
        expected = expected.permute(0, 2, 3, 1)
    outputs = predict(files[name], fed.contiguous().numpy(), TARGETS[fmt])
    np.testing.assert_allclose(outputs, expected.reshape(2, -1).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_export_modules_records_why_a_bad_module_failed_and_the_others_survive(exported):
    _, files = exported
    reasons = {name: file for name, file in files.items() if isinstance(file, Reason)}
    assert set(reasons) == set(BAD)
    assert {reason.code for reason in reasons.values()} == {"export-failed"}
    assert "bessel_j0" in reasons["unsupported"].detail
    assert "data-dependent" in reasons["data-dependent"].detail
    assert "one tensor" in reasons["two-tensors"].detail
    assert all("\n" not in reason.detail for reason in reasons.values())
    assert list(files) == [*BAD, *GOOD]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gated"])
def test_convert_gives_the_same_bytes_alone_as_in_company(exported, name, monkeypatch):
    fmt, files = exported
    export_here(monkeypatch.setattr)
    (alone,) = convert([GOOD[name]], fmt, "output")
    joint = files[name].read_bytes()
    assert operators(fmt, joint) == operators(fmt, alone)
    assert joint == alone


@pytest.mark.slow
def test_export_modules_leaves_nothing_but_whole_files(exported):
    _, files = exported
    folder = files["head"].parent
    assert sorted(folder.iterdir()) == sorted(path for path in files.values() if isinstance(path, Path))
    for path in folder.iterdir():
        data = path.read_bytes()
        assert b"/home" not in data
        assert str(Path.cwd()).encode() not in data


@pytest.mark.slow
@pytest.mark.parametrize("exported", [Format.LITERT], indirect=True, ids=str)
def test_litert_constants_are_aligned_as_the_schema_demands(exported):
    _, files = exported
    data = files["gated"].read_bytes()
    whole = np.frombuffer(data, np.uint8)
    for buffer in flatbuffer.read(data).buffers[1:]:
        offset = buffer.data.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        assert 0 <= offset < len(data)
        assert offset % 16 == 0


@pytest.mark.slow
def test_convert_is_quiet_and_leaves_module_and_mode_alone_when_tracing_fails(capfd):
    module = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), DataDependent())
    before = io.BytesIO()
    torch.save(module.state_dict(), before)
    with pytest.raises(ExportError, match="trace"):
        convert([(module, (2, 4, 4))], Format.ONNX, "output")
    after = io.BytesIO()
    torch.save(module.state_dict(), after)
    assert module.training
    assert isinstance(module[1], nn.BatchNorm2d)
    assert before.getvalue() == after.getvalue()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b"])
def test_export_modules_refuses_a_name_that_is_no_file_name(name, tmp_path):
    with pytest.raises(ExportError, match="cannot name a file"):
        export_modules({name: (nn.Identity(), (1, 2, 2))}, Format.ONNX, tmp_path)


def test_export_modules_is_empty_when_there_are_no_modules(tmp_path):
    assert export_modules({}, Format.ONNX, tmp_path) == {}
