"""What every runtime must do: inherit ``RuntimeContract`` and provide its fixtures."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from devices.errors import MeasurementError, TargetError
from devices.measure import Job, measure, probe
from devices.measurement import Measurement, MeasurementFailure, MeasuringProtocol
from devices.predict import predict
from devices.runtimes import Runtime, find_runtime
from devices.target import Target

QUICK = MeasuringProtocol(
    max_launches=0,
    launches=2,
    warmup_count=2,
    warmup_ns=0,
    min_count=20,
    min_ns=0,
    max_count=30,
    max_ns=1_000_000_000,
)


class RuntimeContract:
    """Subclasses provide three fixtures.

    ``runtime``; ``artifact``, a file it loads with one float input; ``reference``, what the artifact
    computes: ``(N, ...)`` inputs to ``(N, outputs)``. ``input_shape`` is that of one input without the batch.
    """

    input_shape: tuple[int, ...]
    packages: frozenset[str]
    """Top-level packages that the engine may import besides the standard library and numpy."""

    @pytest.fixture
    def runtime(self) -> Runtime:
        raise NotImplementedError

    @pytest.fixture
    def artifact(self) -> Path:
        raise NotImplementedError

    @pytest.fixture
    def reference(self) -> Callable[[np.ndarray], np.ndarray]:
        raise NotImplementedError

    @pytest.fixture
    def target(self, runtime: Runtime) -> Target:
        return Target("host", runtime.name, runtime.precisions[0])

    def test_runtime_is_found_by_its_name(self, runtime):
        assert find_runtime(runtime.name) is runtime

    def test_engine_is_python_3_8_and_imports_only_what_a_device_has(self, runtime):
        tree = ast.parse(runtime.engine.read_text(), feature_version=(3, 8))
        imported = {
            name.split(".")[0]
            for node in ast.walk(tree)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert imported <= set(sys.stdlib_module_names) | {"numpy"} | self.packages

    def test_model_gives_equal_outputs_when_run_again_on_inputs_set_once(self, runtime, artifact, reference):
        spec = importlib.util.spec_from_file_location("engine_under_test", runtime.engine)
        engine = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(engine)
        model = engine.Model(str(artifact), {"threads": 1, "precision": runtime.precisions[0], "options": []})
        assert model.inputs == [((1, *self.input_shape), "float32")]
        row = np.random.default_rng(0).standard_normal((1, *self.input_shape), dtype=np.float32)
        model.set_inputs([row])
        outputs = []
        for _ in range(3):
            model.run()
            outputs.append(np.array(model.outputs()[0]).reshape(1, -1))
        np.testing.assert_array_equal(outputs[0], outputs[1])
        np.testing.assert_array_equal(outputs[0], outputs[2])
        np.testing.assert_allclose(outputs[0], reference(row), atol=1e-5)

    def test_probe_tells_version_binary_and_machine_when_the_runtime_is_installed(self, runtime, target):
        identity, device = probe(target)
        assert (identity.name, identity.precision, identity.threads) == (runtime.name, target.precision, 1)
        assert re.match(r"\d+\.\d+", identity.version)
        assert re.fullmatch(r"[0-9a-f]{64}", identity.binary_digest)
        assert device.cores >= 1
        assert device.machine and device.cpu and device.os and device.kernel and device.instance
        probe.cache_clear()
        assert probe(target) == (identity, device)

    def test_measure_gives_positive_integer_samples_when_the_artifact_is_sound(self, artifact, target):
        outcome = measure([Job("only", artifact)], target, QUICK)["only"]
        assert isinstance(outcome, Measurement)
        assert len(outcome.launches) == QUICK.launches
        for launch in outcome.launches:
            assert QUICK.min_count <= len(launch.samples_ns) <= QUICK.max_count
            assert all(isinstance(sample, int) and sample > 0 for sample in launch.samples_ns)
            assert launch.process_start_ns > 0 and launch.load_ns > 0 and launch.first_inference_ns > 0
            assert launch.peak_memory_bytes > 1 << 20
        assert 0 < outcome.latency.low_ns <= outcome.latency.value_ns <= outcome.latency.high_ns

    @pytest.mark.parametrize("content", ["", "garbage", "truncated"])
    def test_measure_gives_a_failure_when_the_artifact_is_corrupt(self, artifact, target, tmp_path, content):
        broken = tmp_path / f"broken{artifact.suffix}"
        data = artifact.read_bytes()
        broken.write_bytes(
            {"": b"", "garbage": b"\x00garbage" * 50, "truncated": data[: len(data) // 2]}[content]
        )
        outcomes = measure(
            [Job("broken", broken), Job("sound", artifact)], target, replace(QUICK, launches=1)
        )
        assert isinstance(outcomes["broken"], MeasurementFailure)
        assert re.match("load-failed|run-failed|crashed-", outcomes["broken"].reason.code)
        assert isinstance(outcomes["sound"], Measurement)

    def test_predict_gives_each_rows_outputs_when_inputs_are_many(self, artifact, target, reference):
        inputs = np.random.default_rng(1).standard_normal((7, *self.input_shape), dtype=np.float32)
        outputs = predict(artifact, inputs, target, timeout_s=60)
        assert outputs.dtype == np.float32
        np.testing.assert_allclose(outputs, reference(inputs), atol=1e-5)

    def test_predict_refuses_inputs_of_another_shape(self, artifact, target):
        with pytest.raises(MeasurementError) as caught:
            predict(artifact, np.zeros((2, 99), np.float32), target, timeout_s=60)
        assert "(99,)" in str(caught.value)

    def test_check_refuses_a_precision_or_option_that_the_runtime_lacks(self, runtime, target):
        for other in (replace(target, precision="bf16"), replace(target, options=("no-such",))):
            with pytest.raises(TargetError):
                runtime.check(other)
