from __future__ import annotations

import ast
import ctypes
import importlib.util
import json
import shutil
import signal
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from devices.connections import Completed, LocalConnection
from devices.digests import file_digest, value_digest
from devices.errors import MeasurementError, TargetError
from devices.inputs import Given, GivenInput
from devices.installing import how_to_install
from devices.inventory import devices as inventory
from devices.inventory.devices import runtime_of
from devices.measurement.conditions import conditions_from_json
from devices.measurement.measurement import Measurement, MeasurementFailure
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring.batch import Job, measure
from devices.measuring.probing import identify
from devices.runtimes import find_runtime
from devices.runtimes.base import Call, Identify, Measure, Predict, ProfileOperations, Sustain
from devices.runtimes.native.nvidia import parse_gpu_conditions
from devices.runtimes.native.trtexec import TRTEXEC
from devices.runtimes.native.trtexec_output import (
    failure,
    inferences,
    layers,
    load_ns,
    profile,
    version,
    warnings,
)
from devices.runtimes.python_runtimes import TENSORRT
from devices.target import Target
from tests.contracts.runtime import load_engine
from tests.devices.tiny_models import write_tiny_onnx

STANDIN = Path(__file__).parent / "trtexec_standin.py"
NATIVE = Target.parse("host/tensorrt:fp16+native")
QUICK = MeasuringProtocol(
    launches=3, max_launches=0, warmup_count=2, warmup_ns=0, min_count=20, min_ns=0, max_count=30
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of engines, of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lathe" / "tensorrt"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The stand-in, on PATH as trtexec."""
    folder = tmp_path / "folder with 'quotes'"
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    shutil.copy(STANDIN, folder / "trtexec")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "trtexec"


@pytest.fixture
def connection():
    with LocalConnection() as opened:
        yield opened


def model(folder: Path, name: str = "model", **content: object) -> Path:
    path = folder / f"{name}.onnx"
    path.write_text(json.dumps(content))
    return path


def ask(connection, request, target=NATIVE, **limits):
    return TRTEXEC.exchange(Call(connection, target, **{"timeout_s": 60.0, **limits}), request)


def time_one(connection, artifact, target=NATIVE, **limits):
    """The result or failure of a file in one launch."""
    reply = ask(connection, Measure((artifact,), QUICK), target, **limits)
    (event,) = (*reply.all("result"), *reply.all("failed"))
    return event


def builds(cache: Path) -> list[str]:
    """The arguments of each build of anything but the canary."""
    path = cache / "builds"
    return [line for line in path.read_text().splitlines() if "canary" not in line] if path.is_file() else []


class TestTrtexec:
    def test_runtime_is_chosen_by_the_option_native(self):
        assert find_runtime("tensorrt", native=True) is TRTEXEC
        assert find_runtime("tensorrt") is TENSORRT
        assert runtime_of(NATIVE) is TRTEXEC

    def test_a_library_that_cannot_be_read_is_left_out_of_the_digest(self, connection, tool, tmp_path):
        library = tmp_path / "libnvinfer.so.10"
        digest = tool.with_name("sha256sum")
        digest.write_text(f"#!/bin/sh\n/usr/bin/sha256sum | grep -v {file_digest(tool)}\n")
        digest.chmod(0o700)
        loader = tool.with_name("ldconfig")
        loader.write_text(f"#!/bin/sh\necho 'libnvinfer.so.10 => {library}'\n")
        loader.chmod(0o700)
        with pytest.raises(TargetError, match="nothing tells which TensorRT") as caught:
            ask(connection, Identify())
        assert str(tool) in caught.value.why
        library.write_text("library")
        found = ask(connection, Identify()).only("identity")["runtime"]["binary_digest"]
        assert found == value_digest([file_digest(library)])

    def test_error_names_where_it_was_looked_for_when_trtexec_is_not_installed(self, connection, monkeypatch):
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        with pytest.raises(TargetError) as caught:
            ask(connection, Identify())
        assert "/usr/src/tensorrt/bin/trtexec" in caught.value.why
        assert "PATH" in caught.value.fix and "JetPack" in caught.value.fix

    def test_error_says_so_when_trtexec_is_another_program(self, connection, tool):
        tool.write_text("#!/bin/sh\necho hello\n")
        with pytest.raises(TargetError, match="not a trtexec that works"):
            ask(connection, Identify())

    def test_each_shape_has_an_engine_of_its_own_which_is_run_with_it(
        self, connection, tool, tmp_path, cache
    ):
        artifact = model(tmp_path)
        for sizes in ((1, 3, 48, 320), (1, 3, 48, 640), (1, 3, 48, 320)):
            given = Given((GivenInput("x", sizes), GivenInput("n", (1,))))
            (result,) = ask(connection, Measure((artifact,), QUICK, (given,))).all("result")
            assert [tuple(each["shape"]) for each in result["inputs"]] == [sizes, (1,)]
        assert [line.count("--shapes=x:1x3x48x") for line in builds(cache)] == [1, 1]
        assert "--shapes=x:1x3x48x640,n:1" in builds(cache)[1]

    def test_path_in_devices_toml_is_used_before_all_others(self, connection, tool, tmp_path, monkeypatch):
        other = tmp_path / "-named here"
        shutil.copy(tool, other)
        monkeypatch.setenv("TRTEXEC_STANDIN_VERSION", "8601")
        monkeypatch.setattr(inventory, "HOST", replace(inventory.HOST, tools={"trtexec": str(other)}))
        tool.unlink()
        assert identify(NATIVE, connection)[0].version == "8.6.1"
        other.unlink()
        with pytest.raises(TargetError) as caught:
            identify(NATIVE, connection)
        assert str(other) in caught.value.why

    def test_identity_has_version_digest_and_machine(self, connection, tool):
        runtime, device = identify(NATIVE, connection)
        assert runtime.version == "10.3.0.26"
        assert len(runtime.binary_digest) == 64
        assert device.cores >= 1 and device.machine and device.instance
        with tool.open("a") as file:
            file.write("# another build\n")
        assert identify(NATIVE, connection)[0].binary_digest != runtime.binary_digest

    def test_measure_gives_integer_samples_copies_and_placement(self, tool, tmp_path, connection):
        artifact = model(tmp_path, latency_ms=2.0)
        outcome = measure([Job("only", artifact)], NATIVE, QUICK, connection=connection)["only"]
        assert isinstance(outcome, Measurement)
        assert outcome.protocol.warmup_count == 0 and outcome.protocol.max_count > 10**9
        for launch in outcome.launches:
            assert len(launch.samples_ns) >= QUICK.min_count
            assert all(isinstance(sample, int) for sample in launch.samples_ns)
            assert 2_000_000 <= min(launch.samples_ns) <= max(launch.samples_ns) <= 2_020_000
            assert set(launch.to_device_ns) == set(launch.from_device_ns) == {10_000}
            assert launch.load_ns == 13_625_000
            assert launch.first_inference_ns is None and launch.process_start_ns is None
            assert len(launch.canary_ns) >= 2
        assert outcome.placement is not None and outcome.placement.full
        assert outcome.placement.parts[0].nodes == 2

    def test_engine_is_built_once_when_a_file_is_measured_again(self, tool, tmp_path, connection, cache):
        artifact = model(tmp_path, latency_ms=1.0)
        for _ in range(2):
            assert time_one(connection, artifact)["event"] == "result"
        assert len(builds(cache)) == 1
        assert not list(cache.glob("*.partial"))

    def test_engine_is_built_anew_when_file_precision_or_version_differ(
        self, tool, tmp_path, connection, cache, monkeypatch
    ):
        artifact = model(tmp_path, latency_ms=1.0)
        time_one(connection, artifact)
        time_one(connection, model(tmp_path, latency_ms=1.5))
        time_one(connection, artifact, replace(NATIVE, precision="fp32"))
        time_one(connection, artifact, replace(NATIVE, options=("native", "tf32")))
        monkeypatch.setenv("TRTEXEC_STANDIN_VERSION", "8601")
        assert time_one(connection, artifact)["event"] == "result"
        assert len(builds(cache)) == 5

    def test_damaged_cached_engine_fails_once_and_is_then_built_anew(self, tool, tmp_path, connection, cache):
        artifact = model(tmp_path, latency_ms=1.0)
        time_one(connection, artifact)
        for engine in cache.glob("*.engine"):
            engine.write_bytes(b"damaged")
        assert time_one(connection, artifact)["code"] == "load-failed"
        assert time_one(connection, artifact)["event"] == "result"

    def test_incompatible_timing_cache_is_dropped(self, tool, tmp_path, connection, cache):
        time_one(connection, model(tmp_path, latency_ms=1.0))
        (timings,) = cache.glob("*.timings")
        timings.write_text("of another world")
        assert time_one(connection, model(tmp_path, latency_ms=2.0))["event"] == "result"
        assert not timings.exists()
        assert time_one(connection, model(tmp_path, latency_ms=3.0))["event"] == "result"
        assert timings.read_text() == "timings"

    @pytest.mark.parametrize("number", ["8601", "100300", "110100"])
    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    def test_arguments_are_known_to_every_version(
        self, tool, tmp_path, connection, monkeypatch, number, precision
    ):
        monkeypatch.setenv("TRTEXEC_STANDIN_VERSION", number)
        event = time_one(connection, model(tmp_path, latency_ms=1.0), replace(NATIVE, precision=precision))
        assert event["event"] == "result"
        assert event["to_device_ns"][0] == 10_000

    def test_precision_that_no_layer_uses_is_a_warning(self, tool, tmp_path, connection, monkeypatch):
        artifact = model(tmp_path, latency_ms=1.0)
        assert not time_one(connection, artifact)["warnings"]
        monkeypatch.setenv("TRTEXEC_STANDIN_VERSION", "110100")
        (warned,) = time_one(connection, artifact)["warnings"]
        assert warned["code"] == "precision-unused" and "fp16" in warned["detail"]

    def test_warnings_of_trtexec_stand_in_the_result(self, tool, tmp_path, connection):
        event = time_one(connection, model(tmp_path, latency_ms=1.0, warn=True))
        assert [warned["code"] for warned in event["warnings"]] == ["host-bound", "unstable"]
        assert "5.55763%" in event["warnings"][1]["detail"]

    @pytest.mark.parametrize(
        ("fault", "code", "words"),
        [
            ("unsupported", "load-failed", "Plugin not found"),
            ("build-memory", "out-of-memory", "OutOfMemory"),
            ("run-memory", "out-of-memory", "out of memory"),
            ("crash", f"crashed-signal-{signal.SIGSEGV}", ""),
            ("silent-end", "truncated-output", ""),
            ("cut", "truncated-output", "exported times"),
            ("few", "truncated-output", "exported"),
            ("not-json", "truncated-output", "exported times"),
            ("no-file", "truncated-output", "exported times"),
        ],
    )
    def test_faulty_model_fails_with_the_cause_and_others_are_timed(
        self, tool, tmp_path, connection, fault, code, words
    ):
        reply = ask(
            connection, Measure((model(tmp_path, "bad", fault=fault), model(tmp_path, "good")), QUICK)
        )
        (failed,) = reply.all("failed")
        assert (failed["job"], failed["code"]) == (0, code)
        assert words in failed["detail"]
        assert [event["job"] for event in reply.all("result")] == [1]

    def test_hanging_trtexec_is_killed(self, tool, tmp_path, connection):
        event = time_one(connection, model(tmp_path, fault="hang"), silence_s=2.0)
        assert event["code"] == "timeout"

    def test_engine_of_another_version_is_refused(self, tool, tmp_path, connection):
        engine = tmp_path / "-old model.engine"
        engine.write_text(json.dumps({"version": 8601, "model": {}}))
        event = time_one(connection, engine)
        assert event["code"] == "load-failed"
        assert "built by another version" in event["detail"]

    def test_failure_is_an_outcome_when_a_model_cannot_be_built(self, tool, tmp_path, connection):
        jobs = [Job("bad", model(tmp_path, "bad", fault="unsupported")), Job("good", model(tmp_path, "good"))]
        outcomes = measure(jobs, NATIVE, QUICK, connection=connection)
        assert isinstance(outcomes["bad"], MeasurementFailure)
        assert "Whirl" in outcomes["bad"].reason.detail
        assert isinstance(outcomes["good"], Measurement)

    def test_weights_in_another_file_go_along(self, tool, tmp_path, connection):
        path = write_tiny_onnx(tmp_path / "whole.onnx")
        assert time_one(connection, path)["event"] == "result"
        split = tmp_path / "split.onnx"
        onnx.save(onnx.load(path), split, save_as_external_data=True, location="weights", size_threshold=0)
        assert time_one(connection, split)["event"] == "result"

    def test_operations_are_the_layers_with_their_kinds(self, tool, tmp_path, connection):
        reply = ask(connection, ProfileOperations(model(tmp_path, latency_ms=4.0), QUICK))
        event = reply.only("operations")
        assert event["total_ns"] == [4_000_000]
        assert [(op["name"], op["kind"], op["samples_ns"]) for op in event["operations"]] == [
            ("conv1 + relu1", "CaskConvolution", [3_000_000]),
            ("fc", "gemm", [1_000_000]),
        ]

    def test_sustained_run_has_windows_with_conditions_and_a_finish(self, tool, tmp_path, connection):
        request = Sustain(model(tmp_path, latency_ms=10.0), QUICK, 1_000_000_000, 250_000_000)
        reply = ask(connection, request, silence_s=0.01)
        windows = reply.all("window")
        assert len(windows) >= 4 and len(reply.all("finished")) == 1
        assert [window["start_ns"] // 250_000_000 for window in windows] == list(range(len(windows)))
        assert sum(len(window["samples_ns"]) for window in windows) >= 90
        assert all(conditions_from_json(window["conditions"]) for window in windows)

    def test_predict_is_refused_with_the_way_out(self, connection, tmp_path):
        with pytest.raises(MeasurementError) as caught:
            ask(connection, Predict(tmp_path / "a", (tmp_path / "b",), tmp_path / "c"))
        assert "without +native" in caught.value.fix

    def test_reply_is_lost_when_the_device_goes_away_meanwhile(self, tool, tmp_path):
        class Leaving(LocalConnection):
            def run(self, argv, **options):
                if any("--loadEngine" in argument for argument in argv):
                    return Completed(255, "connection closed", lost=True)
                return super().run(argv, **options)

        with Leaving() as connection:
            reply = ask(connection, Measure((model(tmp_path),), QUICK))
        assert reply.ended.lost
        assert not reply.all("result")


class TestOutput:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec --help", "8.6.1"),
            ("&&&& PASSED TensorRT.trtexec [TensorRT v100300] [b26] # trtexec", "10.3.0.26"),
            ("&&&& RUNNING TensorRT.trtexec [TensorRT v101303] [b9] # ./trtexec", "10.13.3.9"),
            ("&&&& RUNNING TensorRT.sample_mnist [TensorRT v8601] # x", None),
            (f"&&&& RUNNING TensorRT.trtexec [TensorRT v{'9' * 5000}] # x", None),
        ],
    )
    def test_version_is_read_from_the_banner(self, line, expected):
        assert version(line) == expected

    def test_load_time_is_reading_and_deserialising(self):
        lines = ["[11/21/2026-10:00:00] [I] Engine loaded in 0.0125 sec."]
        lines += ["[11/21/2026-10:00:00] [I] Engine deserialized in 1e-02 sec."]
        assert load_ns(lines) == 22_500_000
        assert load_ns([]) is None

    @pytest.mark.parametrize(
        "text", ["", "{}", "[]", "[1]", '[{"computeMs": "fast"}]', '[{"computeMs": NaN}]']
    )
    def test_times_are_refused_when_they_are_something_else(self, text):
        with pytest.raises(ValueError):
            inferences(text, ["[I] Timing trace has 1 queries over 3 s"])

    @pytest.mark.parametrize("text", ["", "[]", '[{"count": 0}]', '[{"count": 3}]', "{}", '[{"name": "a"}]'])
    def test_profile_is_refused_when_it_is_something_else(self, text):
        with pytest.raises(ValueError):
            profile(text)

    def test_layers_without_details_keep_their_names(self):
        assert layers('{"Layers": ["conv1", "fc"]}') == [{"Name": "conv1"}, {"Name": "fc"}]
        for text in ("[]", "[" * 100_000):
            with pytest.raises(ValueError):
                layers(text)

    def test_failure_and_warnings_are_none_when_nothing_was_said(self):
        assert failure("") is None
        assert not list(warnings("[W] [TRT] something else"))

    def test_gpu_conditions_come_from_nvidia_smi_or_else_from_the_kernel(self):
        read = parse_gpu_conditions(["smi 1980, 41, 0x0000000000000024", "hertz 1", "warmth 2"])
        assert read == {
            "gpu_frequency_khz": 1_980_000,
            "gpu_temperature_millicelsius": 41_000,
            "gpu_throttle_reasons": "software power cap, software thermal slowdown",
        }
        read = parse_gpu_conditions(["smi [N/A], [N/A], [N/A]", "hertz 918000000", "warmth 48500"])
        assert (read["gpu_frequency_khz"], read["gpu_temperature_millicelsius"]) == (918_000, 48_500)
        assert set(parse_gpu_conditions([]).values()) == {None}


class TestPythonApi:
    """What of the engine needs neither TensorRT nor a GPU; the empty module is only there to be imported."""

    @pytest.fixture
    def engine(self, monkeypatch):
        monkeypatch.setitem(
            sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.3.0", __file__="x")
        )
        monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace(_name=name))
        return load_engine(TENSORRT)

    def test_engine_is_python_3_8_and_imports_only_what_a_device_has(self):
        for path in TENSORRT.files().values():
            tree = ast.parse(path.read_text(), feature_version=(3, 8))
            imported = {
                alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
            }
            assert imported <= set(sys.stdlib_module_names) | {"numpy", "tensorrt"}

    def test_error_says_how_to_install_when_tensorrt_is_missing(self, connection):
        if importlib.util.find_spec("tensorrt") is not None:
            pytest.skip("TensorRT is installed here, with a GPU perhaps")
        # Without an NVIDIA driver the engine does not get as far as the package.
        with pytest.raises(TargetError, match=r"tensorrt (is not installed|cannot be loaded) on") as caught:
            identify(Target("host", "tensorrt", "fp16"), connection)
        assert how_to_install("tensorrt") in caught.value.fix
        assert "JetPack" in caught.value.fix and "+native" in caught.value.fix

    def test_check_refuses_unknown_options(self):
        with pytest.raises(TargetError, match="'gpu'"):
            TENSORRT.check(Target("host", "tensorrt", "fp16", options=("gpu",)))

    def test_engine_key_differs_with_every_part(self, engine, monkeypatch):
        gpu = {"name": "Orin", "compute_capability": "8.7", "driver": "540.4.0"}
        keys = [
            engine.engine_key(b"a", ["FP16"], False, {}, gpu),
            engine.engine_key(b"b", ["FP16"], False, {}, gpu),
            engine.engine_key(b"a", [], False, {}, gpu),
            engine.engine_key(b"a", ["FP16"], True, {}, gpu),
            engine.engine_key(b"a", ["FP16"], False, {"x": [1, 8]}, gpu),
            *(engine.engine_key(b"a", ["FP16"], False, {}, {**gpu, name: "other"}) for name in gpu),
        ]
        assert engine.engine_key(b"a", ["FP16"], False, {}, dict(reversed(gpu.items()))) == keys[0]
        monkeypatch.setattr(engine.tensorrt, "__version__", "10.3.1")
        keys.append(engine.engine_key(b"a", ["FP16"], False, {}, gpu))
        assert len(set(keys)) == len(keys)

    def test_engine_has_no_key_when_weights_are_in_another_file(self, engine, tmp_path):
        path = write_tiny_onnx(tmp_path / "whole.onnx")
        assert engine.engine_key(path.read_bytes(), [], False, {}, {}) is not None
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)
        assert engine.engine_key(path.read_bytes(), [], False, {}, {}) is None

    def test_builder_flags_follow_the_precision_where_there_are_flags(self, engine):
        weak = {"FP16", "INT8", "TF32"}
        assert engine.builder_flags("fp32", weak) == []
        assert engine.builder_flags("int8", weak) == ["INT8", "FP16"]
        with pytest.raises(ValueError, match="bf16"):
            engine.builder_flags("bf16", weak)
        assert engine.builder_flags("bf16", {"TF32"}) == []

    @pytest.mark.parametrize("accepts", ["all", "empty"])
    def test_timing_cache_that_does_not_fit_is_dropped(self, engine, tmp_path, accepts):
        class Config:
            given: bytes | None = None

            def create_timing_cache(self, data):
                if data and accepts == "empty":
                    raise RuntimeError("damaged")
                return data

            def set_timing_cache(self, timings, ignore_mismatch):
                self.given = timings
                return not ignore_mismatch

        path = tmp_path / "timings"
        path.write_bytes(b"learnt")
        config = Config()
        engine.use_timings(config, path)
        assert (config.given, path.is_file()) == ((b"learnt", True) if accepts == "all" else (b"", False))

    def test_precision_is_lacking_only_where_formats_are_told(self, engine):
        tensor = {"Name": "x", "Format/Datatype": "Row major linear FP32"}
        layer = {"Name": "conv", "Inputs": [tensor], "Outputs": [{**tensor, "Format/Datatype": "Half"}]}
        assert not engine.lacks_precision([layer], "fp16")
        assert engine.lacks_precision([{**layer, "Outputs": []}], "fp16")
        assert not engine.lacks_precision(["conv"], "fp16")
        assert not engine.lacks_precision([layer], "fp32")

    def test_driver_version_comes_from_the_module_or_the_release(self, engine):
        module = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build"
        assert engine.cuda.driver_version(module, "") == "540.4.0"
        module = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19"
        assert engine.cuda.driver_version(module, "") == "535.129.03"
        assert engine.cuda.driver_version("", "# R35 (release), REVISION: 4.1, GCID: 1").startswith("R35")

    def test_cached_file_is_written_as_a_whole_or_not_at_all(self, engine, tmp_path):
        engine.write(tmp_path / "new" / "file", b"data")
        assert (tmp_path / "new" / "file").read_bytes() == b"data"
        (tmp_path / "plain").write_text("")
        engine.write(tmp_path / "plain" / "file", b"data")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "plain"]


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is None, reason="needs TensorRT for Python and an NVIDIA GPU"
)
class TestOnGpu:
    @pytest.fixture
    def target(self):
        return Target("host", "tensorrt", "fp32")

    def test_second_measurement_uses_the_engine_of_the_first(self, tiny_onnx, target, cache):
        first = measure([Job("only", tiny_onnx)], target, QUICK)["only"]
        engines = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.engine")}
        second = measure([Job("only", tiny_onnx)], target, QUICK)["only"]
        assert isinstance(first, Measurement) and isinstance(second, Measurement)
        assert engines and engines == {path.name: path.stat().st_mtime_ns for path in cache.glob("*.engine")}
        assert second.launches[0].load_ns < first.launches[0].load_ns
        assert min(first.launches[0].to_device_ns) > 0
        assert second.device.accelerator

    def test_outputs_are_those_of_the_model(self, tiny_onnx, target):
        from devices.requests.prediction import predict
        from tests.devices.tiny_models import INPUTS, tiny_reference

        rows = np.random.default_rng(0).standard_normal((5, INPUTS), dtype=np.float32)
        np.testing.assert_allclose(
            predict(tiny_onnx, rows, target, timeout_s=300), tiny_reference(rows), atol=1e-4
        )
