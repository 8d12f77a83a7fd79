from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from devices.agent.providers import PROVIDERS
from devices.errors import TargetError
from devices.measurement.measurement import Measurement, MeasurementFailure, Placed
from devices.measuring.batch import Job, measure
from devices.requests.operations import profile_operations
from devices.runtimes import find_runtime
from devices.runtimes.python_runtimes import LITERT, ONNXRUNTIME
from devices.target import Target
from tests.contracts.runtime import (
    QUICK,
    AgentRuntimeContract,
    EngineContract,
    load_engine,
    settings_of,
)
from tests.devices.tiny_models import (
    INPUTS,
    OUTPUTS,
    tiny_reference,
    write_branching_onnx,
    write_identity_onnx,
    write_mixed_tflite,
    write_open_tflite,
    write_two_signatures_tflite,
    write_unsupported_onnx,
    write_unsupported_tflite,
    write_wrong_type_tflite,
)


class TestOnnxRuntime(AgentRuntimeContract, EngineContract):
    input_shape = (INPUTS,)
    packages = frozenset({"onnxruntime"})
    operations = 2
    profiled = True

    @pytest.fixture
    def runtime(self):
        return ONNXRUNTIME

    @pytest.fixture
    def artifact(self, tiny_onnx):
        return tiny_onnx

    @pytest.fixture
    def heavy(self, runtime):
        return runtime.canary

    @pytest.fixture
    def unsupported(self, tmp_path):
        return write_unsupported_onnx(tmp_path / "unsupported.onnx")

    @pytest.fixture
    def reference(self):
        return tiny_reference


class TestLiteRt(AgentRuntimeContract, EngineContract):
    input_shape = (INPUTS,)
    packages = frozenset({"ai_edge_litert"})
    operations = 1
    profiled = True

    @pytest.fixture
    def runtime(self):
        return LITERT

    @pytest.fixture
    def artifact(self, tiny_tflite):
        return tiny_tflite

    @pytest.fixture
    def heavy(self, runtime):
        return runtime.canary

    @pytest.fixture
    def unsupported(self, tmp_path):
        return write_unsupported_tflite(tmp_path / "unsupported.tflite")

    @pytest.fixture
    def reference(self):
        return tiny_reference


def test_find_runtime_lists_the_known_ones_when_the_name_is_unknown():
    with pytest.raises(TargetError, match="onnxrt") as caught:
        find_runtime("onnxrt")
    assert "onnxruntime, openvino, litert" in caught.value.why


def test_every_provider_is_one_that_onnxruntime_knows():
    import onnxruntime

    named = {*PROVIDERS.values(), *load_engine(ONNXRUNTIME).PACKAGES}
    assert named <= set(onnxruntime.get_all_providers())


def test_onnxruntime_names_its_providers_and_the_package_when_one_is_not_in_this_build():
    engine = load_engine(ONNXRUNTIME)
    with pytest.raises(ValueError, match="pip install onnxruntime-openvino") as caught:
        engine.check(settings_of(ONNXRUNTIME, openvino=""))
    assert "no OpenVINOExecutionProvider" in str(caught.value)
    assert "CPUExecutionProvider" in str(caught.value)


def test_measure_says_which_package_has_the_provider_when_it_is_not_in_this_build(tiny_onnx):
    target = Target("host", "onnxruntime", options=("openvino",))
    try:
        outcome = measure([Job("tiny", tiny_onnx)], target, QUICK)["tiny"]
    except TargetError as error:
        told = str(error)
    else:
        assert isinstance(outcome, MeasurementFailure)
        told = outcome.reason.detail
    assert "pip install onnxruntime-openvino" in told


def test_onnxruntime_refuses_two_providers_at_once():
    with pytest.raises(TargetError, match="CUDAExecutionProvider and OpenVINOExecutionProvider"):
        ONNXRUNTIME.check(Target("host", "onnxruntime", options=("cuda", "openvino")))


def test_onnxruntime_fails_rather_than_fall_back_when_a_provider_cannot_be_started(tiny_onnx, monkeypatch):
    engine = load_engine(ONNXRUNTIME)

    class Fallen(engine.onnxruntime.InferenceSession):
        def __init__(self, *arguments, providers, **options):
            super().__init__(*arguments, providers=["CPUExecutionProvider"], **options)

    names = [*engine.onnxruntime.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr(engine.onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(engine.onnxruntime, "InferenceSession", Fallen)
    with pytest.raises(RuntimeError, match="CUDAExecutionProvider is in this ONNX Runtime but could not"):
        engine.Model(str(tiny_onnx), settings_of(ONNXRUNTIME, cuda=""))


def test_onnxruntime_does_not_profile_kernels_that_it_only_starts(tiny_onnx, monkeypatch):
    engine = load_engine(ONNXRUNTIME)
    monkeypatch.setattr(engine.onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(NotImplementedError, match="start a kernel"):
        engine.operations(str(tiny_onnx), settings_of(ONNXRUNTIME, cuda=""), [], 3)


def test_onnxruntime_counts_stretches_in_order_of_execution_when_providers_share_a_model(
    tiny_onnx, monkeypatch
):
    engine = load_engine(ONNXRUNTIME)
    model = engine.Model(str(tiny_onnx), settings_of(ONNXRUNTIME))
    gpu, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    nodes = [(gpu, 1), (gpu, 2), (gpu, 1), (cpu, 1)]
    model._session.get_provider_graph_assignment_info = lambda: [
        SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count) for name, count in nodes
    ]
    run = [{"where": name} for name in (gpu, gpu, cpu, gpu)]
    monkeypatch.setattr(engine, "_profile", lambda *arguments: ([], [run]))
    assert model.placement() == [
        {"where": gpu, "nodes": 4, "partitions": 2},
        {"where": cpu, "nodes": 1, "partitions": 1},
    ]


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_onnxruntime_takes_inputs_of_every_type(tmp_path, dtype):
    model = load_engine(ONNXRUNTIME).Model(
        str(write_identity_onnx(tmp_path / "identity.onnx", dtype)), settings_of(ONNXRUNTIME)
    )
    assert model.inputs == [((1, INPUTS), dtype)]
    values = np.arange(INPUTS).reshape(1, INPUTS).astype(dtype)
    model.set_inputs([values])
    model.run()
    np.testing.assert_array_equal(model.outputs()[0], values)


def test_onnxruntime_counts_the_time_of_a_branch_once(tmp_path):
    engine = load_engine(ONNXRUNTIME)
    model = write_branching_onnx(tmp_path / "branching.onnx")
    arrays = [np.ones((1, INPUTS), np.float32)]
    found, total_ns = engine.operations(str(model), settings_of(ONNXRUNTIME), arrays, 5)
    assert [entry["kind"] for entry in found] == ["ReduceSum", "Less", "If"]
    assert all(len(entry["samples_ns"]) == 5 for entry in found)
    assert len(total_ns) == 5


def test_onnxruntime_leaves_no_profile_behind(tiny_onnx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engine = load_engine(ONNXRUNTIME)
    engine.operations(str(tiny_onnx), settings_of(ONNXRUNTIME), [np.ones((1, INPUTS), np.float32)], 2)
    assert list(tmp_path.iterdir()) == []


def test_onnxruntime_tells_no_conditions_of_a_gpu_when_the_drivers_tool_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = load_engine(ONNXRUNTIME)
    assert set(engine.accelerator_conditions(settings_of(ONNXRUNTIME, cuda="")).values()) == {None}
    assert engine.accelerator_conditions(settings_of(ONNXRUNTIME)) == {}
    assert engine.accelerator(settings_of(ONNXRUNTIME, cuda="")) == "NVIDIA GPU, driver unknown"
    assert engine.accelerator(settings_of(ONNXRUNTIME)) == ""


def test_litert_tells_what_xnnpack_left_when_it_does_not_take_an_operation(tmp_path):
    model = write_mixed_tflite(tmp_path / "mixed.tflite")
    outcome = measure([Job("mixed", model)], Target("host", "litert"), QUICK)["mixed"]
    assert isinstance(outcome, Measurement)
    assert outcome.placement.parts == (Placed("xnnpack", 2, 2), Placed("cpu", 1, 1))
    assert not outcome.placement.full


def test_measure_fails_when_full_delegation_is_required_and_xnnpack_left_an_operation(tmp_path):
    model = write_mixed_tflite(tmp_path / "mixed.tflite")
    outcome = measure([Job("mixed", model)], Target("host", "litert"), QUICK, require_full_delegation=True)[
        "mixed"
    ]
    assert isinstance(outcome, MeasurementFailure)
    assert "1 of 3 operations on cpu" in outcome.reason.detail


def test_litert_names_the_operation_when_it_lacks_a_type(tmp_path):
    model = write_wrong_type_tflite(tmp_path / "bool.tflite")
    outcome = measure([Job("bool", model)], Target("host", "litert"), QUICK)["bool"]
    assert isinstance(outcome, MeasurementFailure)
    assert outcome.reason.code == "load-failed"
    assert "CUMSUM" in outcome.reason.detail


@pytest.mark.slow
def test_litert_says_what_its_gpu_accelerator_needs_when_there_is_no_gpu(tiny_tflite, monkeypatch):
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nowhere")
    engine = load_engine(LITERT)
    with pytest.raises(RuntimeError, match="needs a Vulkan, OpenCL or Metal driver"):
        engine.Model(str(tiny_tflite), settings_of(LITERT, gpu=""))


def test_litert_computes_the_same_through_a_compiled_model(tiny_tflite, monkeypatch):
    """On the CPU, since the way is the same and a GPU is not always at hand."""
    from ai_edge_litert import compiled_model, hardware_accelerator

    assert compiled_model.HardwareAccelerator is hardware_accelerator.HardwareAccelerator
    cpu = hardware_accelerator.HardwareAccelerator.CPU
    monkeypatch.setattr(hardware_accelerator, "HardwareAccelerator", SimpleNamespace(GPU=cpu))
    model = load_engine(LITERT).Model(str(tiny_tflite), settings_of(LITERT, gpu=""))
    assert model.inputs == [((1, INPUTS), "float32")]
    row = np.random.default_rng(0).standard_normal((1, INPUTS), dtype=np.float32)
    model.set_inputs([row])
    for _ in range(2):
        model.copy_in()
        model.run()
        model.copy_out()
        assert model.outputs()[0].shape == (1, OUTPUTS)
        np.testing.assert_allclose(model.outputs()[0], tiny_reference(row), atol=1e-5)
    assert model.placement() == [{"where": "gpu", "nodes": 1, "partitions": 1}]


def test_litert_profiles_what_xnnpack_makes_of_its_part_and_the_kernels_beside_it(tmp_path):
    model = write_mixed_tflite(tmp_path / "mixed.tflite")
    profile = profile_operations(model, Target("host", "litert"), QUICK)
    kinds = [(operation.kind.split(" (")[0], operation.where) for operation in profile.operations]
    assert kinds == [
        ("Static Reshape", "xnnpack"),
        ("Fully Connected", "xnnpack"),
        ("CUMSUM", "cpu"),
        ("Static Reshape", "xnnpack"),
        ("Fully Connected", "xnnpack"),
    ]


def test_litert_does_not_profile_by_an_interface_that_it_does_not_know(tiny_tflite, monkeypatch):
    engine = load_engine(LITERT)
    monkeypatch.setattr(engine.ai_edge_litert, "__version__", "2.4.0")
    with pytest.raises(NotImplementedError, match=r"this is LiteRT 2\.4\.0"):
        engine.operations(str(tiny_tflite), settings_of(LITERT), [], 3)


def given(runtime, **inputs):
    """Settings of a job that is given something."""
    return {**settings_of(runtime), **inputs}


def test_litert_takes_a_given_size_of_an_open_dimension_also_for_its_operations(tmp_path):
    path, engine = str(write_open_tflite(tmp_path / "open.tflite")), load_engine(LITERT)
    assert engine.Model(path, settings_of(LITERT)).described == [("x", ("?", INPUTS))]
    wanted = given(LITERT, shapes={"x": [5, INPUTS]})
    model = engine.Model(path, wanted)
    rows = np.random.default_rng(0).standard_normal((5, INPUTS), dtype=np.float32)
    model.set_inputs([rows])
    model.run()
    np.testing.assert_allclose(model.outputs()[0], tiny_reference(rows), atol=1e-5)
    assert sum(part["nodes"] for part in model.placement()) == 1
    found, total_ns = engine.operations(path, wanted, [rows], 3)
    assert "Fully Connected" in found[-1]["kind"] and len(total_ns) == 3


@pytest.mark.parametrize(("key", "rows"), [("", 1), ("decode", 1), ("encode", 3)])
def test_litert_measures_the_signature_that_is_chosen_and_names_the_others(tmp_path, key, rows):
    path, engine = str(write_two_signatures_tflite(tmp_path / "two.tflite")), load_engine(LITERT)
    wanted = given(LITERT, signature=key)
    model = engine.Model(path, wanted)
    assert model.described == [("rows", (rows, INPUTS))]
    values = np.random.default_rng(0).standard_normal((rows, INPUTS), dtype=np.float32)
    model.set_inputs([values])
    model.run()
    np.testing.assert_allclose(model.outputs()[0], tiny_reference(values), atol=1e-5)
    (warning,) = model.warnings()
    measured, other = (key or "decode"), ("decode" if key == "encode" else "encode")
    assert f"'{measured}' was measured" in warning["detail"] and f"'{other}'" in warning["detail"]
    found, _ = engine.operations(path, wanted, [values], 3)
    assert "Fully Connected" in found[-1]["kind"]


def test_litert_names_the_signatures_that_there_are(tmp_path):
    path, engine = str(write_two_signatures_tflite(tmp_path / "two.tflite")), load_engine(LITERT)
    with pytest.raises(ValueError, match="no signature 'train'; it has 'decode', 'encode'"):
        engine.Model(path, given(LITERT, signature="train"))


def test_litert_names_a_custom_operator_with_the_way_out(tmp_path):
    path = write_unsupported_tflite(tmp_path / "custom.tflite")
    with pytest.raises(RuntimeError, match=r"the operator 'NoSuchOperation' is its maker's own.*\+native"):
        load_engine(LITERT).Model(str(path), settings_of(LITERT))


def test_litert_says_that_a_precision_is_a_label_where_the_file_has_none_of_it(tiny_tflite):
    engine = load_engine(LITERT)
    codes = {
        precision: [each["code"] for each in engine.Model(str(tiny_tflite), settings).warnings()]
        for precision in ("fp32", "fp16", "int8")
        if (settings := given(LITERT, precision=precision))
    }
    assert codes == {"fp32": [], "fp16": ["precision-is-a-label"], "int8": ["precision-is-a-label"]}
