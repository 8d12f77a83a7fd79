"""Export to int8: integers throughout, close to torch, the same bytes for the same module."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper
from torch import nn

from devices.measurement.measurement import Reason
from pipeline.errors import ExportError
from pipeline.export import flatbuffer
from pipeline.export.base import Format
from pipeline.export.blocks import export_modules
from pipeline.export.conversion import convert
from pipeline.export.process import Worker
from pipeline.export.quantisation import quantise
from pipeline.spaces.mobile.space import MobileSpace
from tests.exporters_here import export_here

INT8 = [fmt for fmt in Format if fmt.precision == "int8"]


def good_modules() -> dict[str, tuple[nn.Module, tuple[int, int, int]]]:
    torch.manual_seed(3)
    space = MobileSpace.from_config(None, (3, 12, 12), 10)
    by_kind = {block.kind: block for block in space.distinct_blocks()}
    residual = next(
        block
        for block in space.distinct_blocks()
        if block.kind == "mbconv"
        and dict(block.arguments)["squeeze_excite"]
        and dict(block.arguments)["stride"] == 1
        and dict(block.arguments)["out_channels"] == block.input_shape[0]
    )
    blocks = {"stem": by_kind["stem"], "gated": residual, "head": by_kind["head"]}
    modules = {name: (space.build_block(block), block.input_shape) for name, block in blocks.items()}
    network = space.build(space.extreme(lambda block: block.input_shape[0]))
    # More than 256 KiB of weights: the LiteRT quantiser puts them behind the flatbuffer.
    large = nn.Sequential(nn.Conv2d(256, 1100, 1), nn.ReLU())
    # The first ReLU of an untrained network may be silent: its range says nothing.
    silent = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1))
    nn.init.constant_(silent[0].bias, -99.0)
    return {
        **modules,
        "network": (network, space.input_shape),
        "large": (large, (256, 2, 2)),
        "silent": (silent, (3, 4, 4)),
    }


GOOD = good_modules()
INPUTS = {
    name: torch.randn(1, *shape, generator=torch.Generator().manual_seed(7))
    for name, (_, shape) in GOOD.items()
}


@pytest.fixture(scope="module", params=INT8, ids=str, name="exported")
def _exported(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        export_here(patch.setattr)
        return request.param, export_modules(GOOD, request.param, tmp_path_factory.mktemp("int8"))


class OnnxModel:
    """An int8 model on ONNX Runtime, fed and read as floats."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.types = [self.session.get_inputs()[0].type, self.session.get_outputs()[0].type]

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        graph = self.model.graph
        (first, *_) = (node for node in graph.node if "input" in node.input)
        (last,) = (node for node in graph.node if "output" in node.output)
        assert (first.op_type, last.op_type) == ("DequantizeLinear", "QuantizeLinear")
        scale, zero = self._scale(first)
        quantised = (inputs / scale + zero).round().clip(0, 255).astype(np.uint8)
        (answer,) = self.session.run(None, {"input": quantised})
        scale, zero = self._scale(last)
        return (answer.astype(np.float32) - zero) * scale

    def _scale(self, node: onnx.NodeProto) -> list[np.ndarray]:
        weights = {weight.name: weight for weight in self.model.graph.initializer}
        return [numpy_helper.to_array(weights[name]).astype(np.float32) for name in node.input[1:]]


class LitertModel:
    """An int8 model on LiteRT, fed and read as floats in torch's layout."""

    def __init__(self, path: Path) -> None:
        self.interpreter = Interpreter(model_path=str(path), num_threads=1)
        self.interpreter.allocate_tensors()
        (self.first,), (self.last,) = (
            self.interpreter.get_input_details(),
            self.interpreter.get_output_details(),
        )
        self.types = [f"tensor({np.dtype(entry['dtype']).name})" for entry in (self.first, self.last)]

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        scale, zero = self.first["quantization"]
        quantised = (inputs.transpose(0, 2, 3, 1) / scale + zero).round().clip(-128, 127).astype(np.int8)
        self.interpreter.set_tensor(self.first["index"], quantised)
        self.interpreter.invoke()
        answer = self.interpreter.get_tensor(self.last["index"]).astype(np.float32)
        scale, zero = self.last["quantization"]
        answer = (answer - zero) * scale
        return answer.transpose(0, 3, 1, 2) if answer.ndim == 4 else answer


def loaded(fmt: Format, path: Path) -> OnnxModel | LitertModel:
    return OnnxModel(path) if fmt is Format.ONNX_INT8 else LitertModel(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
def test_int8_files_take_and_give_integers_and_answer_nearly_like_torch(exported, name):
    fmt, files = exported
    model = loaded(fmt, files[name])
    assert model.types == ["tensor(uint8)" if fmt is Format.ONNX_INT8 else "tensor(int8)"] * 2
    with torch.no_grad():
        expected = GOOD[name][0].eval()(INPUTS[name]).numpy()
    answer = model(INPUTS[name].numpy())
    assert answer.shape == expected.shape
    assert np.abs(answer - expected).mean() <= 0.1 * expected.std()


@pytest.mark.slow
@pytest.mark.parametrize("exported", [Format.ONNX_INT8], indirect=True, ids=str)
@pytest.mark.parametrize("name", GOOD)
def test_onnx_runtime_runs_every_convolution_with_integers(exported, name, tmp_path):
    _, files = exported
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(files[name]), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    wanted = Counter(node.op_type for node in onnx.load(files[name]).graph.node)
    assert found["QLinearConv"] == wanted["Conv"] > 0
    assert found["QGemm"] == wanted["Gemm"]
    assert not {"Conv", "FusedConv", "Gemm", "Add", "Mul"} & set(found)


@pytest.mark.slow
@pytest.mark.parametrize("exported", [Format.LITERT_INT8], indirect=True, ids=str)
@pytest.mark.parametrize("name", GOOD)
def test_xnnpack_takes_all_of_a_litert_model_whose_every_operator_gives_int8(exported, name):
    _, files = exported
    model = LitertModel(files[name])
    (delegate,) = (entry for entry in model.interpreter._get_ops_details() if entry["op_name"] == "DELEGATE")
    assert model.first["index"] in delegate["inputs"]
    assert list(delegate["outputs"]) == [model.last["index"]]
    graph = flatbuffer.read(files[name].read_bytes()).subgraphs[0]
    int8 = graph.tensors[graph.inputs[0]].type
    assert {graph.tensors[operator.outputs[0]].type for operator in graph.operators} == {int8}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gated"])
def test_convert_to_int8_gives_the_same_bytes_alone_as_in_company(exported, name, monkeypatch):
    fmt, files = exported
    export_here(monkeypatch.setattr)
    assert convert([GOOD[name]], fmt, "output") == [files[name].read_bytes()]


@pytest.mark.slow
def test_int8_files_are_whole_and_smaller_than_their_weights_in_fp32(exported):
    _, files = exported
    folder = files["large"].parent
    assert sorted(folder.iterdir()) == sorted(files.values())
    weights = sum(weight.numel() for weight in GOOD["large"][0].parameters())
    assert weights < files["large"].stat().st_size < 1.2 * weights


@pytest.mark.parametrize("fmt", INT8, ids=str)
def test_quantise_says_in_one_line_what_the_quantiser_refuses_and_is_quiet(fmt, capfd):
    failed = f"the quantisation for {fmt.runtime} failed"
    with pytest.raises(ExportError, match=failed) as caught, Worker(fmt.runtime) as worker:
        quantise([b"no model at all"], fmt, "output", worker)
    assert caught.value.why
    assert "\n" not in caught.value.why
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_module_that_cannot_be_quantised_is_recorded_and_the_others_survive(tmp_path, monkeypatch):
    export_here(monkeypatch.setattr)
    bad = nn.Conv2d(2, 2, 1)
    nn.init.constant_(bad.weight, float("nan"))
    modules = {"bad": (bad, (2, 4, 4)), "good": (nn.Conv2d(2, 2, 1), (2, 4, 4))}
    files = export_modules(modules, Format.ONNX_INT8, tmp_path)
    assert isinstance(files["bad"], Reason)
    assert files["bad"].code == "export-failed"
    assert isinstance(files["good"], Path)
