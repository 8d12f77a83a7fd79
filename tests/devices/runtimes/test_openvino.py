from __future__ import annotations

import os

import numpy as np
import pytest

from devices.errors import TargetError
from devices.measurement.measurement import Measurement, MeasurementFailure
from devices.measuring.batch import Job, measure
from devices.requests.operations import profile_operations
from devices.runtimes.python_runtimes import OPENVINO
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
    tiny_reference,
    write_identity_onnx,
    write_quantised_onnx,
    write_unsupported_onnx,
)

HOST = Target("host", "openvino")


class TestOpenVino(AgentRuntimeContract, EngineContract):
    input_shape = (INPUTS,)
    packages = frozenset({"openvino"})
    operations = 1  # the relu is fused into the product
    profiled = True

    @pytest.fixture
    def runtime(self):
        return OPENVINO

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


@pytest.fixture(scope="module")
def engine():
    return load_engine(OPENVINO)


@pytest.fixture(scope="module")
def offered(engine):
    """The kinds of arithmetic that OpenVINO has on the CPU of the tests."""
    return engine.openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def settings(precision: str = "fp32", threads: int = 1) -> dict:
    return {**settings_of(OPENVINO), "precision": precision, "threads": threads}


def kernels(engine, path, precision: str) -> list[str]:
    """The kernels of the convolutions and products, as OpenVINO names them."""
    inputs = engine.Model(str(path), settings(precision)).inputs
    arrays = [np.ones(shape, dtype) for shape, dtype in inputs]
    found, _ = engine.operations(str(path), settings(precision), arrays, 2)
    return [entry["kind"] for entry in found if entry["kind"].startswith(("Convolution", "FullyConnected"))]


def test_openvino_computes_in_fp32_where_it_would_choose_bf16_itself(engine):
    assert all(kind.endswith("f32)") for kind in kernels(engine, OPENVINO.canary, "fp32"))


def test_openvino_computes_in_bf16_when_asked_or_says_that_the_cpu_does_not(engine, offered):
    if "BF16" in offered:
        engine.check(settings("bf16"))
        assert all(kind.endswith("bf16)") for kind in kernels(engine, OPENVINO.canary, "bf16"))
        assert engine.Model(str(OPENVINO.canary), settings("bf16")).warnings() == []
    else:
        with pytest.raises(ValueError, match="does not compute in bf16 on this CPU"):
            engine.check(settings("bf16"))


def test_openvino_refuses_fp16_rather_than_compute_in_bf16_in_its_place(engine, monkeypatch):
    class Core:
        def get_property(self, device, name):
            return ["BF16", "FP32", "INT8"]

    monkeypatch.setattr(engine.openvino, "Core", Core)
    with pytest.raises(ValueError, match="not compute in fp16 on this CPU, only in FP32, BF16, INT8"):
        engine.check(settings("fp16"))


def test_measure_refuses_a_precision_that_the_cpu_lacks_before_it_loads_anything(tiny_onnx, offered):
    if "FP16" in offered:
        outcome = measure([Job("tiny", tiny_onnx)], Target("host", "openvino", "fp16"), QUICK)["tiny"]
        assert isinstance(outcome, Measurement)
        return
    with pytest.raises(TargetError, match="cannot be had") as caught:
        measure([Job("tiny", tiny_onnx)], Target("host", "openvino", "fp16"), QUICK)
    assert "fp16" in caught.value.why


def test_openvino_runs_a_quantised_model_in_integers(engine, tmp_path):
    model = write_quantised_onnx(tmp_path / "quantised.onnx")
    loaded = engine.Model(str(model), settings("int8"))
    assert loaded.warnings() == []
    row = np.linspace(-1, 1, INPUTS, dtype=np.float32).reshape(1, INPUTS)
    loaded.set_inputs([row])
    loaded.run()
    np.testing.assert_allclose(loaded.outputs()[0], tiny_reference(row), atol=0.1)


def test_measure_warns_when_nothing_is_computed_in_the_precision_of_the_target(tiny_onnx):
    outcome = measure([Job("tiny", tiny_onnx)], Target("host", "openvino", "int8"), QUICK)["tiny"]
    assert isinstance(outcome, Measurement), outcome
    assert [warning.code for warning in outcome.launches[0].warnings] == ["precision-unused"]
    assert "all in f32" in outcome.launches[0].warnings[0].detail


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"]
)
def test_openvino_takes_inputs_of_every_type_and_open_dimensions_as_one(engine, tmp_path, dtype):
    model = engine.Model(str(write_identity_onnx(tmp_path / "identity.onnx", dtype)), settings())
    assert model.inputs == [((1, INPUTS), dtype)]
    values = np.arange(INPUTS).reshape(1, INPUTS).astype(dtype)
    model.set_inputs([values])
    model.run()
    np.testing.assert_array_equal(model.outputs()[0], values)


def test_openvino_uses_the_threads_of_the_target_or_refuses(engine, tiny_onnx):
    cores = len(os.sched_getaffinity(0))
    for threads in range(1, cores + 1):
        model = engine.Model(str(tiny_onnx), settings(threads=threads))
        assert model._compiled.get_property("INFERENCE_NUM_THREADS") == threads
        assert model._compiled.get_property("NUM_STREAMS") == 1
        assert not model._compiled.get_property("ENABLE_CPU_PINNING")
    with pytest.raises(ValueError, match=f"write @{cores}"):
        engine.Model(str(tiny_onnx), settings(threads=cores + 1))


def test_measure_says_so_when_a_target_has_more_threads_than_cores_to_run_on(tiny_onnx):
    target = Target("host", "openvino", threads=2, options=("cores=0",))
    outcome = measure([Job("tiny", tiny_onnx)], target, QUICK)["tiny"]
    assert isinstance(outcome, MeasurementFailure)
    assert "OpenVINO uses 1 threads here when asked for 2" in outcome.reason.detail


def test_profile_names_the_kernel_of_each_operation():
    profile = profile_operations(OPENVINO.canary, HOST, QUICK)
    convolutions = [entry for entry in profile.operations if entry.kind.startswith("Convolution (")]
    assert len(convolutions) == 3
    assert all(len(entry.samples_ns) == 1 and entry.samples_ns[0] > 0 for entry in convolutions)


def test_openvino_takes_a_given_size_of_an_open_dimension(engine, tmp_path):
    path = str(write_identity_onnx(tmp_path / "identity.onnx", "float32"))
    wanted = {**settings(), "shapes": {"x": [5, INPUTS]}}
    model = engine.Model(path, wanted)
    assert model.described == [("x", ("?", INPUTS))]
    rows = np.arange(5 * INPUTS, dtype=np.float32).reshape(5, INPUTS)
    model.set_inputs([rows])
    model.run()
    np.testing.assert_array_equal(model.outputs()[0], rows)
    with pytest.raises(ValueError, match="no input 'y'; it has 'x'"):
        engine.Model(path, {**settings(), "shapes": {"y": [1, INPUTS]}})
