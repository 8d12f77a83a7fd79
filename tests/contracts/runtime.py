"""What every runtime must do: inherit ``RuntimeContract``, or for one that Lathe's agent drives
``AgentRuntimeContract``, and provide the fixtures."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from devices.agent.agent import load
from devices.connections import Connection, LocalConnection
from devices.errors import MeasurementError, TargetError
from devices.installing import how_to_install
from devices.measurement import Outcome
from devices.measurement.measurement import Measurement, MeasurementFailure
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring.batch import Job, measure
from devices.measuring.probing import identify
from devices.requests.operations import profile_operations
from devices.requests.prediction import predict
from devices.runtimes import AgentRuntime, Runtime, find_runtime
from devices.target import PRECISIONS, Target

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
    """Subclasses provide ``runtime``, ``artifact``, ``unsupported``; and ``connection`` for another device.

    Attributes:
        operations: how many the artifact has.
        profiled: whether the runtime has a profiler of operations.
        refusal: what the reason of a failure tells of the operation that ``unsupported`` needs.
    """

    operations: int
    profiled: bool
    refusal: str = "NoSuchOperation"

    @pytest.fixture
    def runtime(self) -> Runtime:
        raise NotImplementedError

    @pytest.fixture
    def artifact(self) -> Path:
        """A file that the runtime loads and its delegate takes as a whole, with one float input."""
        raise NotImplementedError

    @pytest.fixture
    def heavy(self, artifact: Path) -> Path:
        """A file whose operations take long enough for the profiler's clock."""
        return artifact

    @pytest.fixture
    def unsupported(self) -> Path:
        """A sound file with an operation that the runtime lacks."""
        raise NotImplementedError

    @pytest.fixture
    def connection(self) -> Iterator[Connection]:
        with LocalConnection() as opened:
            yield opened

    @pytest.fixture
    def target(self, runtime: Runtime) -> Target:
        return Target("host", runtime.name, runtime.precisions[0])

    @pytest.fixture
    def outcomes(self, request, artifact, unsupported, target, connection, tmp_path) -> dict[str, Outcome]:
        """Of broken files and a sound one, measured together and once for all tests of a class."""
        if "_outcomes" not in vars(request.cls):
            data = artifact.read_bytes()
            contents = {"empty": b"", "garbage": b"\x00garbage" * 50, "truncated": data[: len(data) // 2]}
            jobs = [Job("unsupported", unsupported), Job("sound", artifact)]
            for name, content in contents.items():
                broken = tmp_path / f"{name}{artifact.suffix}"
                broken.write_bytes(content)
                jobs.insert(0, Job(name, broken))
            request.cls._outcomes = measure(jobs, target, QUICK, connection=connection)
        return request.cls._outcomes

    @pytest.fixture
    def measured(self, outcomes) -> Measurement:
        measured = outcomes["sound"]
        assert isinstance(measured, Measurement), measured
        return measured

    def test_runtime_is_found_by_its_name(self, runtime):
        assert find_runtime(runtime.name, native=not runtime.needs_python) is runtime

    def test_options_are_described_and_survive_being_written(self, runtime, target):
        for name, description in runtime.options.items():
            assert description
            for option in (name, f"{name}=1"):
                chosen = replace(target, options=(option,))
                assert Target.parse(str(chosen)) == chosen
                assert name in chosen.settings
                runtime.check(chosen)

    def test_capabilities_are_declared_for_every_option_and_say_why_not(self, runtime, target):
        for options in ((), *((name,) for name in runtime.options)):
            able = runtime.capabilities(replace(target, options=options))
            assert able.time
            assert all(support.possible or support.note for _, support in able)

    def test_outputs_are_refused_before_the_device_is_asked_where_none_are_declared(
        self, runtime, artifact, target
    ):
        support = runtime.capabilities(target).outputs
        if support:
            return
        with pytest.raises(MeasurementError, match="gives no outputs") as caught:
            predict(artifact, np.zeros((1, 4), np.float32), target)
        assert caught.value.why == support.note

    def test_delegate_is_named_for_every_option(self, runtime, target):
        assert runtime.delegate(target)
        for name in runtime.options:
            assert runtime.delegate(replace(target, options=(name,)))

    def test_check_refuses_an_option_that_the_runtime_lacks_and_lists_its_own(self, runtime, target):
        with pytest.raises(TargetError, match="no-such") as caught:
            runtime.check(replace(target, options=("no-such",)))
        assert all(name in caught.value.why for name in runtime.options)

    def test_check_refuses_a_precision_that_the_runtime_lacks_and_lists_its_own(self, runtime, target):
        for precision in {*PRECISIONS, "fp4"} - {*runtime.precisions}:
            with pytest.raises(TargetError, match=precision) as caught:
                runtime.check(replace(target, precision=precision))
            assert all(name in caught.value.why for name in runtime.precisions)

    def test_identify_tells_version_binary_and_machine(self, runtime, target, connection):
        identity, device = identify(target, connection)
        assert (identity.name, identity.precision, identity.threads) == (runtime.name, target.precision, 1)
        assert re.match(r"\d+\.\d+", identity.version)
        assert re.fullmatch(r"[0-9a-f]{64}", identity.binary_digest)
        assert device.cores >= 1
        assert device.machine and device.cpu and device.os and device.kernel and device.instance
        assert identify(target, connection) == (identity, device)

    def test_measure_gives_positive_times_when_the_artifact_is_sound(self, measured):
        assert len(measured.launches) == measured.protocol.launches
        for launch in measured.launches:
            assert launch.samples_ns or launch.summary is not None
            assert all(isinstance(sample, int) and sample > 0 for sample in launch.samples_ns)
            phases = (launch.process_start_ns, launch.load_ns, launch.first_inference_ns)
            assert all(phase is None or phase > 0 for phase in phases)
            assert launch.peak_memory_bytes is None or launch.peak_memory_bytes > 1 << 20
            assert len(launch.canary_ns) != 1
        assert 0 < measured.latency.low_ns <= measured.latency.value_ns <= measured.latency.high_ns

    def test_placement_adds_up_to_the_operations_of_the_model(self, runtime, measured, target):
        placement = measured.placement
        assert placement is not None
        assert sum(part.nodes for part in placement.parts) == self.operations
        assert all(1 <= part.partitions <= part.nodes for part in placement.parts)
        assert placement.delegate == runtime.delegate(target)
        assert placement.full

    @pytest.mark.parametrize("content", ["empty", "garbage", "truncated"])
    def test_measure_gives_a_failure_when_the_artifact_is_corrupt_and_goes_on(
        self, outcomes, measured, content
    ):
        assert isinstance(outcomes[content], MeasurementFailure)
        assert re.match("load-failed|run-failed|crashed-", outcomes[content].reason.code)

    def test_measure_names_the_operation_when_the_runtime_lacks_it(self, outcomes):
        outcome = outcomes["unsupported"]
        assert isinstance(outcome, MeasurementFailure)
        assert outcome.reason.code == "load-failed"
        assert self.refusal in outcome.reason.detail

    def test_profile_lists_every_operation_with_a_time_for_each_inference(self, heavy, target, connection):
        if not self.profiled:
            with pytest.raises(MeasurementError, match="not-supported"):
                profile_operations(heavy, target, QUICK, connection=connection)
            return
        profile = profile_operations(heavy, target, QUICK, connection=connection)
        assert len({operation.name for operation in profile.operations}) == len(profile.operations) > 0
        assert all(operation.kind and operation.where for operation in profile.operations)
        counts = {len(operation.samples_ns) for operation in profile.operations}
        assert counts <= {QUICK.min_count, 1}
        assert sum(part.share for part in profile.by_kind()) == pytest.approx(1)
        if profile.whole_ns is not None:
            assert len(profile.total_ns) == QUICK.min_count
            # a mean of each operation contains what disturbed it, unlike the median of the whole
            whole_ns = np.mean(profile.total_ns) if counts == {1} else profile.whole_ns
            assert 0 < profile.sum_ns < 2 * whole_ns


class AgentRuntimeContract(RuntimeContract):
    """Subclasses also provide ``reference``: what the artifact computes, ``(N, ...)`` to ``(N, outputs)``.

    Attributes:
        input_shape: of one input, without the batch.
        packages: top-level packages that the engine may import besides the standard library and numpy.
    """

    input_shape: tuple[int, ...]
    packages: frozenset[str]

    @pytest.fixture
    def reference(self) -> Callable[[np.ndarray], np.ndarray]:
        raise NotImplementedError

    def test_engine_is_python_3_8_and_imports_only_what_a_device_has(self, runtime):
        for path in runtime.files().values():
            tree = ast.parse(path.read_text(), feature_version=(3, 8))
            imported = {
                name.split(".")[0]
                for node in ast.walk(tree)
                for name in (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom) and not node.level
                    else []
                )
            }
            assert imported <= set(sys.stdlib_module_names) | {"numpy"} | self.packages

    def test_predict_gives_each_rows_outputs_when_inputs_are_many(
        self, artifact, target, connection, reference
    ):
        inputs = np.random.default_rng(1).standard_normal((7, *self.input_shape), dtype=np.float32)
        outputs = predict(artifact, inputs, target, timeout_s=60, connection=connection)
        assert outputs.dtype == np.float32
        np.testing.assert_allclose(outputs, reference(inputs), atol=1e-5)

    def test_predict_refuses_inputs_of_another_shape(self, artifact, target, connection):
        with pytest.raises(MeasurementError) as caught:
            predict(artifact, np.zeros((2, 99), np.float32), target, timeout_s=60, connection=connection)
        assert "(1, 99)" in str(caught.value)

    def test_identify_tells_how_to_install_the_runtime_when_the_interpreter_lacks_it(self, runtime, target):
        bare = LocalConnection(python=(sys.executable, "-I", "-S"))
        # An engine that imports numpy first does not get as far as its runtime.
        with pytest.raises(TargetError, match=r"is not installed on|cannot be loaded on") as caught:
            identify(target, bare)
        assert caught.value.fix.endswith(how_to_install(runtime.extra))
        assert "No module named" in caught.value.why


class EngineContract:
    """What an engine file must do, for runtimes that the Python of the tests can import.

    Subclasses provide the fixtures of ``AgentRuntimeContract``.
    """

    @pytest.fixture
    def engine(self, runtime: AgentRuntime) -> ModuleType:
        return load_engine(runtime)

    def test_model_gives_equal_outputs_when_run_again_on_inputs_set_once(
        self, runtime, engine, artifact, reference
    ):
        model = engine.Model(str(artifact), settings_of(runtime))
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

    def test_model_keeps_its_inputs_when_the_arrays_change_afterwards(self, runtime, engine, artifact):
        model = engine.Model(str(artifact), settings_of(runtime))
        row = np.ones((1, *self.input_shape), np.float32)
        model.set_inputs([row])
        model.run()
        before = np.array(model.outputs()[0])
        row[:] = 100
        model.run()
        np.testing.assert_array_equal(model.outputs()[0], before)

    def test_outputs_are_copies_that_the_next_inference_leaves_alone(self, runtime, engine, artifact):
        model = engine.Model(str(artifact), settings_of(runtime))
        model.set_inputs([np.ones((1, *self.input_shape), np.float32)])
        model.run()
        first = model.outputs()[0]
        kept = np.array(first)
        model.set_inputs([np.full((1, *self.input_shape), -2, np.float32)])
        model.run()
        np.testing.assert_array_equal(first, kept)


def load_engine(runtime: AgentRuntime) -> ModuleType:
    """The engine of a runtime, as the agent loads it."""
    return load({name: str(path) for name, path in runtime.files().items()})["engine"]


def settings_of(runtime: AgentRuntime, **options: str) -> dict:
    """What the agent hands to an engine."""
    target = Target("host", runtime.name, runtime.precisions[0], options=tuple(options))
    return {
        "threads": target.threads,
        "precision": target.precision,
        "options": options,
        "delegate": runtime.delegate(target),
    }
