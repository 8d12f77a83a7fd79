"""Variants for NPUs, by the real tool and Intel's real plug-in; OpenVINO's CPU stands for the NPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.aot.vendors.intel_openvino.intel_openvino_backend import IntelOpenVinoBackend

from devices.errors import MeasurementError
from devices.requests import predict
from devices.target import Target
from pipeline.compile import CompileTask, CompileVariant, Fate, Place, Rules, find_variant
from pipeline.compile.steps import litert_npu as step
from pipeline.compile.variants import default_variant, litert_npu
from pipeline.errors import ExportError
from pipeline.export import flatbuffer
from tests.contracts.compile_variant import CompileVariantContract
from tests.devices.npu import CHIP, ON_CPU, openvino_as_litert_wants_it
from tests.pipeline.compile.compiling import compiled, only
from tests.pipeline.compile.finished_models import made_up_rounds
from tests.places import ROOT

CANARY = ROOT / "devices" / "canary" / "canary.tflite"
IMAGES = np.random.default_rng(0).standard_normal((8, 32, 32, 3), dtype=np.float32)
NAMES = ("litert:fp16-npu", "litert:int8-npu")
NPU = f"host/litert+npu={CHIP}@1"


@pytest.fixture
def openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intel's plug-in finds OpenVINO, and has it compile for the CPU."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(openvino_as_litert_wants_it(tmp_path / "openvino")))
    create = IntelOpenVinoBackend.create

    def on_cpu(config: dict[str, Any]) -> IntelOpenVinoBackend:
        return create({**config, **ON_CPU})

    def call(name: str, *, what: str, fix: str = "", **arguments: Any) -> Any:
        function: Callable[..., Any] = getattr(step, name.partition(":")[2])
        try:
            return function(**arguments)
        except ValueError as error:
            raise ExportError(what, why=str(error), fix=fix) from error

    monkeypatch.setattr(IntelOpenVinoBackend, "create", on_cpu)
    monkeypatch.setattr(litert_npu, "call", call)


@pytest.fixture
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if Intel's SDK was installed, without its compiler for NPUs."""
    (tmp_path / "packages").mkdir()
    module = tmp_path / "packages" / "ai_edge_litert_sdk_intel.py"
    module.write_text("def path_to_sdk_libs():\n    return None\n")
    monkeypatch.syspath_prepend(module.parent)
    yield
    sys.modules.pop(module.stem, None)


@pytest.mark.slow
@pytest.mark.parametrize("variant", NAMES, indirect=True)
@pytest.mark.usefixtures("openvino")
class TestVariantsForNpus(CompileVariantContract):
    @pytest.fixture
    def variant(self, request) -> CompileVariant:
        return find_variant(request.param)

    @pytest.fixture
    def task(self, variant) -> CompileTask:
        target = Target("host", "litert", variant.precision, options=(f"npu={CHIP}",))
        return CompileTask(CANARY, target, {"x": IMAGES})

    @pytest.fixture
    def expected(self) -> np.ndarray:
        return predict(CANARY, IMAGES, Target("host", "litert"))

    def test_the_file_has_one_operator_for_what_the_plugin_took(self, variant, task, tmp_path):
        notes = variant.make(task, tmp_path / "made.tflite")
        model = flatbuffer.read((tmp_path / "made.tflite").read_bytes())
        assert flatbuffer.operator_names(model) == ["DISPATCH_OP"]
        stamps = [model.buffers[each.buffer].data for each in model.metadata if each.name == b"LiteRtStamp"]
        assert b"IntelOpenVINO" in bytes(stamps[0])
        assert notes["cpu"] == f"the NPU {CHIP}"
        taken, _, all_of_it = notes["compiled"].partition(" operators in 1 part")[0].partition(" of ")
        assert int(taken) == int(all_of_it) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chip", "why"),
    [
        ("SM8650", r"libQnnHtp\.so of the maker's SDK is not there"),
        (CHIP, r"libopenvino\.so\.\d+ of the maker's SDK is not there, or another version of it is"),
        ("Tensor_G5", r"liblitert_plugin_compiler\.so of the maker's SDK is not there"),
        ("MT6989", "Failed to load NeuronAdapter shared library"),
    ],
)
def test_what_the_makers_plugin_lacks_is_named_with_the_package_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chip: str, why: str
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    target = Target("host", "litert", "fp16", options=(f"npu={chip}",))
    with pytest.raises(ExportError, match=f"cannot be compiled for the NPU '{chip}'") as caught:
        find_variant("litert:fp16-npu").make(CompileTask(CANARY, target), tmp_path / "made.tflite")
    assert caught.match(why)
    assert "install ai-edge-litert-sdk-" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("npu=SM8650", "install ai-edge-litert-sdk-qualcomm=="),
        ("npu=E9965", "get the module ai_edge_litert_sdk_samsung from Samsung"),
        ("npu=SM1", "LiteRT does not compile for 'SM1'; write +npu=NAME with one of Tensor_G3, "),
        ("npu", "the target does not say which NPU it is; write +npu=NAME with one of "),
        ("gpu", "the target names no NPU to compile for"),
    ],
)
def test_a_target_that_nothing_is_compiled_for_says_what_to_do(option: str, why: str) -> None:
    for name in NAMES:
        assert why in find_variant(name).unfit(Target("host", "litert", "fp16", options=(option,)))


@pytest.mark.usefixtures("sdk")
def test_with_its_makers_sdk_an_npu_is_compiled_for_and_what_the_cpu_runs_is_not() -> None:
    variants = {variant.name: why for variant, why in Place.parse(NPU).variants()}
    fitting = {name for name, why in variants.items() if not why}
    assert fitting == {"litert:fp32", *NAMES}
    assert variants["litert:int8-static"] == "an NPU runs only what was compiled for it"
    with pytest.raises(ExportError, match="nothing is compiled for target") as caught:
        default_variant(Target("host", "litert", options=(f"npu={CHIP}",)))
    assert "litert:fp32: an NPU runs only what was compiled for it" in caught.value.why


@pytest.mark.slow
@pytest.mark.usefixtures("openvino", "sdk")
def test_a_model_is_compiled_for_an_npu_and_what_comes_out_is_a_finished_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.compile.race.measure_round", made_up_rounds({NAMES[0]: 30, NAMES[1]: 20}))
    np.save(tmp_path / "images.npy", np.concatenate([IMAGES] * 4))
    data = tmp_path / "images.npy"
    raced = only(compiled(CANARY, tmp_path, data, places=(Place.parse(NPU),), rules=Rules(forced=True)))
    assert raced.chosen == NAMES[1]
    assert raced.row("litert:fp32").fate is Fate.MEASURED
    quality = raced.row(NAMES[1]).quality
    assert quality is not None
    assert quality.max_rel is not None
    assert 0 < quality.max_rel < 0.25
    file = raced.row(NAMES[0]).file
    assert file is not None
    finished = tmp_path / "finished.tflite"
    finished.write_bytes((tmp_path / "work" / "stages" / file.stage / file.path).read_bytes())
    again = only(compiled(finished, tmp_path, data, places=(Place.parse(NPU),), rules=Rules(forced=True)))
    assert again.chosen == "litert:fp32"
    quality = again.row("litert:fp32").quality
    assert quality is not None
    assert quality.max_abs == 0
    assert "compiled for an NPU already" in again.row(NAMES[0]).why
    assert "compiled for an NPU already" in again.row("litert:fp32-tidied").why
    monkeypatch.undo()
    with pytest.raises(MeasurementError, match="itself does not run") as caught:
        compiled(finished, tmp_path, places=(Place.parse("host/litert@1"),))
    assert "'DISPATCH_OP' stands for a part of the model that was compiled for an NPU" in caught.value.why
