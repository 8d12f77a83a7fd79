"""The makers' tools, through stand-ins that print their real output; see native_standins/."""

from __future__ import annotations

import functools
import platform
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from devices.conditions import conditions_from_json
from devices.connections import LocalConnection
from devices.connections.base import Completed
from devices.digests import file_digest
from devices.errors import MeasurementError, TargetError
from devices.measure import Job, measure
from devices.measurement import (
    DeviceIdentity,
    Measurement,
    MeasurementFailure,
    MeasuringProtocol,
    Placed,
    Placement,
)
from devices.runtimes import find_runtime
from devices.runtimes.base import Call, Identify, Measure, Predict, ProfileOperations, Sustain
from devices.runtimes.benchmark_model import BENCHMARK_MODEL, parse_operations, parse_summary
from devices.runtimes.native import ToolFailed, core_mask, native_folder, native_tool
from devices.runtimes.perf_test import PERF_TEST, parse_profile, parse_samples, steady
from devices.runtimes.shell import read_platform
from devices.target import Target

STANDINS = Path(__file__).parent / "native_standins"
LITERT = Target("host", "litert", options=("native",))
ONNX = Target("host", "onnxruntime", options=("native",))
PROTOCOL = MeasuringProtocol(warmup_count=5, warmup_ns=10_000_000, min_count=50, min_ns=25_000_000)
BOTH = pytest.mark.parametrize(
    ("runtime", "target"), [(BENCHMARK_MODEL, LITERT), (PERF_TEST, ONNX)], ids=["litert", "onnxruntime"]
)


@pytest.fixture(autouse=True)
def tools(tmp_path_factory, monkeypatch) -> Path:
    """The stand-ins, installed as tools for this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    folder = native_folder() / read_platform(LocalConnection())
    shutil.copytree(STANDINS, folder)
    return folder


@pytest.fixture
def without_canary(monkeypatch):
    for runtime in (BENCHMARK_MODEL, PERF_TEST):
        monkeypatch.setattr(type(runtime), "_time_canary", lambda self, session, protocol: None)


@pytest.fixture
def ask(tmp_path):
    """Ask a runtime to measure models that make the stand-in behave in some way."""
    connections = []

    def ask(runtime, target, *behaviours, request=None, timeout_s=30.0, **options):
        connections.append(LocalConnection())
        models = []
        for number, behaviour in enumerate(behaviours):
            models.append(tmp_path / f"{number}{runtime.suffixes[0]}")
            models[-1].write_text(f"{behaviour}\n")
        call = Call(connections[-1], target, timeout_s=timeout_s, **options)
        make = request or (lambda *models: Measure(models, runtime.adapt(PROTOCOL)))
        return runtime.exchange(call, make(*models))

    yield ask
    for connection in connections:
        connection.close()


@pytest.fixture
def place(ask, without_canary):
    def place(runtime, target, behaviour):
        result = ask(runtime, target, behaviour).only("result")["placement"]
        return Placement(result["delegate"], tuple(Placed(**part) for part in result["parts"]))

    return place


def arguments_of(model: Path) -> list[str]:
    return Path(f"{model}.arguments").read_text().splitlines()


@BOTH
def test_runtime_is_found_where_there_is_no_python(runtime, target):
    assert find_runtime(runtime.name, native=True) is runtime
    assert find_runtime(runtime.name) is not runtime


@BOTH
def test_identify_names_the_binary_and_the_machine(runtime, target, ask, tools):
    identity = ask(runtime, target, request=Identify).only("identity")
    assert identity["runtime"]["binary_digest"] == file_digest(tools / runtime.tool)
    device = DeviceIdentity(**identity["device"])
    assert (device.machine, device.accelerator, device.emulated) == (platform.machine(), "", False)


@BOTH
def test_identify_refuses_another_program(runtime, target, ask, tools):
    (tools / runtime.tool).write_text("#!/bin/sh\necho Hello\n")
    with pytest.raises(TargetError, match="another program") as caught:
        ask(runtime, target, request=Identify)
    assert "Hello" in caught.value.why


@BOTH
def test_exchange_names_both_ways_to_give_a_tool_when_there_is_none(runtime, target, ask, tools):
    (tools / runtime.tool).unlink()
    with pytest.raises(TargetError) as caught:
        ask(runtime, target, "plain")
    assert str(tools / runtime.tool) in caught.value.why
    assert "tools/fetch_native" in caught.value.fix and f"tools.{runtime.tool}" in caught.value.fix


@BOTH
def test_exchange_refuses_a_tool_for_another_processor(runtime, target, ask, tools):
    other = 183 if platform.machine() == "x86_64" else 62
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + other.to_bytes(2, "little") + bytes(44)
    (tools / runtime.tool).write_bytes(elf)
    with pytest.raises(TargetError, match="cannot run on") as caught:
        ask(runtime, target, "plain")
    assert "aarch64" in caught.value.why or "x86_64" in caught.value.why


@BOTH
def test_exchange_says_so_when_the_device_cannot_start_the_tool(runtime, target, ask, tools):
    (tools / runtime.tool).write_text("#!/no/such/interpreter\n")
    with pytest.raises(TargetError, match="cannot be started") as caught:
        ask(runtime, target, "plain")
    assert "not found" in caught.value.why


def test_native_tool_prefers_the_users_own(tmp_path):
    own = tmp_path / "my build"
    own.write_text("#!/bin/sh\n")
    assert native_tool("benchmark_model", "android-aarch64", {"benchmark_model": str(own)}) == own


def test_native_tool_takes_a_32_bit_tool_for_a_64_bit_processor(tmp_path):
    own = tmp_path / "tool"
    own.write_bytes(b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00" + (40).to_bytes(2, "little"))
    assert native_tool("benchmark_model", "android-aarch64", {"benchmark_model": str(own)}) == own
    with pytest.raises(TargetError, match="cannot run on"):
        native_tool("benchmark_model", "android-x86_64", {"benchmark_model": str(own)})


@BOTH
def test_exchange_makes_the_pushed_tool_executable(runtime, target, ask, tools):
    (tools / runtime.tool).chmod(0o600)
    assert ask(runtime, target, "plain").only("result")


@BOTH
def test_measure_reports_events_in_the_order_of_the_agent(runtime, target, ask):
    seen = []
    reply = ask(runtime, target, "plain", "plain", on_event=lambda event: seen.append(event["event"]))
    assert seen == [event["event"] for event in reply.events]
    timed = ["started", "result"]
    assert seen == ["ready", "canary", *timed, "canary", *timed, "canary"]
    assert reply.ended == Completed(0, "")


@BOTH
def test_measure_gives_conditions_around_every_model(runtime, target, ask, without_canary):
    result = ask(runtime, target, "plain").only("result")
    before, after = conditions_from_json(result["before"]), conditions_from_json(result["after"])
    assert before.memory_available_bytes > 0 and after.memory_available_bytes > 0


@BOTH
@pytest.mark.parametrize(
    ("behaviour", "code", "said"),
    [
        ("garbage", "load-failed", "ailed"),
        ("run-failed", "run-failed", "Conv|CONV"),
        ("crash", "crashed-signal-11", ""),
        ("cut", "truncated-output", ""),
    ],
)
def test_measure_reports_the_failure_and_goes_on_when_a_model_fails(
    runtime, target, ask, without_canary, behaviour, code, said
):
    reply = ask(runtime, target, behaviour, "plain")
    assert (reply.only("failed")["job"], reply.only("failed")["code"]) == (0, code)
    assert re.search(said, reply.only("failed")["detail"])
    assert reply.only("result")["job"] == 1


@BOTH
def test_measure_kills_the_tool_when_it_takes_too_long(runtime, target, ask, without_canary):
    reply = ask(runtime, target, "hang", "plain", silence_s=1.5)
    assert (reply.only("failed")["job"], reply.only("failed")["code"]) == (0, "timeout")
    assert reply.only("result")["job"] == 1


@BOTH
def test_measure_ends_as_timed_out_when_the_whole_time_is_up(runtime, target, ask, without_canary):
    reply = ask(runtime, target, "hang", "plain", timeout_s=1.0)
    assert reply.ended.timed_out
    assert [event["event"] for event in reply.events] == ["ready", "started", "failed", "started"]


@BOTH
def test_measure_keeps_what_was_timed_when_the_device_goes_away(
    runtime, target, ask, without_canary, monkeypatch
):
    real = LocalConnection.run
    ran = []

    def run(self, argv, **options):
        ran.append(argv)
        model = f"1{runtime.suffixes[0]}"
        lost = any(str(argument).endswith(model) for argument in argv)
        return Completed(-1, "gone", lost=True) if lost else real(self, argv, **options)

    monkeypatch.setattr(LocalConnection, "run", run)
    reply = ask(runtime, target, "plain", "plain", "plain")
    assert reply.ended.lost
    assert [event["event"] for event in reply.events] == ["ready", "started", "result", "started"]


@BOTH
def test_tool_runs_on_the_cores_and_threads_of_the_target(runtime, target, ask, without_canary, tmp_path):
    target = replace(target, threads=2, options=("cores=0", "native"))
    assert ask(runtime, target, "record").only("result")
    model = tmp_path / f"0{runtime.suffixes[0]}"
    arguments = " ".join(arguments_of(model))
    assert "--num_threads=2" in arguments or "-x 2" in arguments
    assert Path(f"{model}.cores").read_text() == "0\n"


@BOTH
def test_tool_cannot_run_on_a_core_that_is_not_there(runtime, target, ask, without_canary):
    reply = ask(runtime, replace(target, options=("cores=1000", "native")), "plain")
    assert "taskset" in reply.only("failed")["detail"]


@pytest.mark.parametrize(("text", "mask"), [("0", 1), ("4-7", 0xF0), ("0-3,6", 0x4F), ("1,1", 2)])
def test_core_mask_sets_a_bit_for_every_core(text, mask):
    assert core_mask(text) == mask


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "0-99999999", "1..2"])
@BOTH
def test_check_refuses_cores_that_are_no_list(runtime, target, text):
    with pytest.raises(TargetError, match="cores"):
        runtime.check(replace(target, options=(f"cores={text}",)))


@BOTH
def test_predict_is_refused_with_a_way_out(runtime, target, ask, tmp_path):
    with pytest.raises(MeasurementError) as caught:
        ask(runtime, target, "plain", request=lambda model: Predict(model, tmp_path, tmp_path))
    assert "Python" in caught.value.fix


@BOTH
def test_sustain_reports_windows_until_the_time_is_over(runtime, target, ask):
    reply = ask(
        runtime, target, "plain", request=lambda model: Sustain(model, PROTOCOL, 300_000_000, 50_000_000)
    )
    windows = reply.all("window")
    assert len(windows) >= 2 and reply.only("finished")
    starts = [window["start_ns"] for window in windows]
    assert starts == sorted(starts) and starts[-1] < 300_000_000
    assert all(window["samples_ns"] for window in windows)
    assert conditions_from_json(windows[0]["conditions"]).memory_available_bytes > 0


@BOTH
def test_sustain_keeps_its_windows_when_the_model_fails(runtime, target, ask):
    reply = ask(
        runtime, target, "crash", request=lambda model: Sustain(model, PROTOCOL, 300_000_000, 50_000_000)
    )
    assert reply.only("failed")["code"] == "crashed-signal-11"
    assert not reply.all("finished")


@BOTH
@pytest.mark.parametrize("name", ["with space", "quote'\"`$(x)", "-rf", "line\nbreak"])
def test_models_may_have_any_name(runtime, target, ask, without_canary, tmp_path, name):
    model = tmp_path / f"{name}{runtime.suffixes[0]}"
    model.write_text("plain\n")
    assert ask(runtime, target, request=lambda: Measure((model,), PROTOCOL)).only("result")


@BOTH
def test_measure_makes_a_measurement_of_what_the_tool_says(runtime, target, tmp_path):
    sound, broken = tmp_path / f"a{runtime.suffixes[0]}", tmp_path / f"b{runtime.suffixes[0]}"
    sound.write_text("plain\n")
    broken.write_text("garbage\n")
    outcomes = measure(
        [Job("sound", sound), Job("broken", broken)], target, replace(PROTOCOL, launches=3, max_launches=3)
    )
    assert isinstance(outcomes["sound"], Measurement)
    assert isinstance(outcomes["broken"], MeasurementFailure)
    assert outcomes["broken"].reason.code == "load-failed"
    assert outcomes["sound"].protocol == runtime.adapt(outcomes["sound"].protocol)
    expected_ns = 28_001_000 if runtime is BENCHMARK_MODEL else 10_200_000
    assert outcomes["sound"].latency.value_ns == pytest.approx(expected_ns, rel=0.001)


# benchmark_model


def test_benchmark_model_gives_its_statistics_in_nanoseconds(ask, without_canary):
    result = ask(BENCHMARK_MODEL, LITERT, "plain").only("result")
    assert (result["load_ns"], result["first_inference_ns"]) == (12_345_000, 31_000_000)
    assert result["samples_ns"] == []
    assert result["summary"] == {
        "count": 50,
        "mean_ns": 28_050_400,
        "min_ns": 27_100_000,
        "max_ns": 33_000_000,
        "quantiles_ns": ((0.05, 27_200_000), (0.5, 28_001_000), (0.95, 29_100_000)),
    }
    assert result["peak_memory_bytes"] == round(93.2383 * 1024 * 1024)


def test_benchmark_model_takes_its_median_for_the_headline():
    assert BENCHMARK_MODEL.adapt(PROTOCOL).headline_quantile == 0.5


def test_benchmark_model_gives_its_median_for_the_canary(ask):
    assert ask(BENCHMARK_MODEL, LITERT, "plain").all("canary")[0]["samples_ns"] == [28_001_000]


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("INFO: count=50 curr=105(all same) p5=105 median=105 p95=105", 50),
        ("INFO: count=50 curr=105(all same)", 50),
        ("count=1 curr=105 p5=105 median=105 p95=105", 1),
    ],
)
def test_benchmark_model_gives_equal_samples_as_one(line, count):
    summary = parse_summary(["INFO: count=5 curr=7(all same)", line])
    assert (summary.count, summary.mean_ns, summary.min_ns, summary.max_ns) == (count, *[105_000] * 3)
    assert dict(summary.quantiles_ns)[0.5] == 105_000


def test_benchmark_model_reads_large_means(ask):
    lines = [
        "INFO: count=2 curr=7(all same)",
        "INFO: count=5 first=1000000 curr=1 min=1 max=2 avg=1.00135e+07 std=3 p5=1 median=2 p95=3",
    ]
    assert parse_summary(lines).mean_ns == 10_013_500_000


def test_benchmark_model_is_refused_when_it_has_no_median(ask):
    with pytest.raises(TargetError, match="too old") as caught:
        ask(BENCHMARK_MODEL, LITERT, "old")
    assert "mean" in caught.value.why


def test_benchmark_model_reports_a_flag_that_it_does_not_know(ask, without_canary):
    failed = ask(BENCHMARK_MODEL, LITERT, "unknown-flag").only("failed")
    assert failed["code"] == "unsupported-option" and "--nnapi_allow_fp16" in failed["detail"]


def test_benchmark_model_reports_an_unsupported_operator(ask, without_canary):
    failed = ask(BENCHMARK_MODEL, LITERT, "unsupported").only("failed")
    assert failed["code"] == "load-failed" and "CONV_2D" in failed["detail"]


def test_benchmark_model_reports_that_memory_ran_out(ask, without_canary):
    assert ask(BENCHMARK_MODEL, LITERT, "memory").only("failed")["code"] == "out-of-memory"


@pytest.mark.parametrize(
    ("precision", "option", "expected"),
    [
        ("fp32", None, {"--use_xnnpack=true"}),
        ("fp16", None, {"--use_xnnpack=true", "--xnnpack_force_fp16=true"}),
        ("fp32", "gpu", {"--use_gpu=true", "--gpu_precision_loss_allowed=false"}),
        ("fp16", "gpu", {"--use_gpu=true", "--gpu_precision_loss_allowed=true"}),
        ("fp16", "nnapi", {"--use_nnapi=true", "--nnapi_allow_fp16=true"}),
    ],
)
def test_benchmark_model_is_given_what_the_target_says(
    ask, without_canary, tmp_path, precision, option, expected
):
    target = replace(LITERT, precision=precision, options=(option,) if option else ())
    assert ask(BENCHMARK_MODEL, target, "record").only("result")
    given = set(arguments_of(tmp_path / "0.tflite"))
    protocol = {"--warmup_runs=5", "--warmup_min_secs=0.010000", "--num_runs=50", "--min_secs=0.025000"}
    assert expected | protocol <= given
    assert sum(argument.startswith("--use_") for argument in given) == 1


@pytest.mark.parametrize(
    ("option", "behaviour", "parts", "full"),
    [
        ("native", "plain", (Placed("xnnpack", 33, 1),), True),
        ("gpu", "plain", (Placed("gpu", 33, 1),), True),
        ("gpu", "partial", (Placed("gpu", 31, 2), Placed("cpu", 2, None)), False),
        ("gpu", "gpu-lists", (Placed("gpu", 30, 1), Placed("cpu", 3, None)), False),
        ("nnapi", "partial-quiet", (Placed("nnapi", None, 2), Placed("cpu", None, None)), False),
        ("nnapi", "refused", (Placed("cpu", None, None),), False),
        ("gpu", "no-gpu", (Placed("cpu", None, None),), False),
    ],
)
def test_benchmark_model_says_where_operations_ran(place, option, behaviour, parts, full):
    placement = place(BENCHMARK_MODEL, replace(LITERT, options=(option,)), behaviour)
    assert (placement.parts, placement.full) == (parts, full)


def test_placement_prints_what_is_not_known(place):
    placement = place(BENCHMARK_MODEL, replace(LITERT, options=("nnapi",)), "partial-quiet")
    assert str(placement) == "some operations on nnapi in 2 partitions, some operations on cpu"


def test_benchmark_model_profiles_operations_per_inference(ask):
    reply = ask(
        BENCHMARK_MODEL, LITERT, "plain", request=lambda model: ProfileOperations(model, PROTOCOL)
    ).only("operations")
    assert [(row["kind"], row["where"], row["samples_ns"]) for row in reply["operations"]] == [
        ("QUANTIZE", "cpu", [203_000]),
        ("Convolution (NHWC, QC8) DWConv", "xnnpack", [13 * 51_000]),
        ("TfLiteGpuDelegateV2", "gpu", [11_422_000]),
    ]
    assert reply["total_ns"] == [28_050_400]


def test_benchmark_model_reads_the_columns_by_their_names_when_there_are_more():
    header = "\t[node type]\t[start]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]"
    row = "\tCONV_2D\t0.066\t87.754\t60.957\t2.066%\t2.066%\t0.000\t1\t[Relu6]:0"
    title = "Operator-wise Profiling Info for Regular Benchmark Runs:"
    rule = "============================== Run Order =============================="
    assert parse_operations([title, rule, header, row, ""], "xnnpack") == [
        {"name": "[Relu6]:0", "kind": "CONV_2D", "where": "cpu", "samples_ns": [60_957_000]}
    ]


# onnxruntime_perf_test


def test_perf_test_gives_its_samples_without_the_warm_up(ask, without_canary):
    result = ask(PERF_TEST, ONNX, "plain").only("result")
    assert len(result["samples_ns"]) == 95
    assert result["samples_ns"][:6] == [
        10_205_000, 10_206_000, 10_207_000, 10_208_000, 10_209_000, 10_200_000,
    ]  # fmt: skip
    assert (result["load_ns"], result["first_inference_ns"]) == (10_201_600, 12_000_000)
    assert result["peak_memory_bytes"] == 36_696_064


def test_perf_test_says_nothing_of_a_first_inference_below_a_millisecond(ask, without_canary):
    assert ask(PERF_TEST, ONNX, "fast").only("result")["first_inference_ns"] is None


def test_perf_test_runs_for_longer_when_a_model_is_slow(ask, without_canary):
    result = ask(PERF_TEST, ONNX, "slow").only("result")
    assert result["samples_ns"] == [500_000_000] * 4, "four seconds, less a warm-up that its cap ends"


def test_perf_test_adapts_the_protocol_to_whole_seconds():
    adapted = PERF_TEST.adapt(PROTOCOL)
    assert adapted.min_ns + adapted.warmup_ns == 1_000_000_000
    assert PERF_TEST.adapt(adapted) == adapted


@pytest.mark.parametrize("behaviour", ["cut-file", "no-file"])
def test_perf_test_fails_when_its_file_lacks_samples(ask, without_canary, behaviour):
    failed = ask(PERF_TEST, ONNX, behaviour).only("failed")
    assert failed["code"] == "truncated-output" and "of 100 times" in failed["detail"]


@pytest.mark.parametrize(
    ("option", "parts", "full"),
    [
        ("native", (Placed("CPUExecutionProvider", 3, 1),), True),
        (
            "xnnpack",
            (Placed("XnnpackExecutionProvider", 2, 2), Placed("CPUExecutionProvider", 1, 1)),
            False,
        ),
        (
            "nnapi",
            (Placed("NnapiExecutionProvider", None, 2), Placed("CPUExecutionProvider", 1, 1)),
            False,
        ),
    ],
)
def test_perf_test_says_where_operations_ran(place, option, parts, full):
    placement = place(PERF_TEST, replace(ONNX, options=(option,)), "plain")
    assert (placement.parts, placement.full) == (parts, full)


def test_perf_test_times_a_model_though_its_placement_cannot_be_read(ask, without_canary):
    result = ask(PERF_TEST, ONNX, "cut-profile").only("result")
    assert result["samples_ns"] and "placement" not in result


def test_perf_test_is_given_seed_and_provider(ask, without_canary, tmp_path):
    target = replace(ONNX, precision="fp16", options=("nnapi",))
    assert ask(PERF_TEST, target, "record").only("result")
    timed, profiled = arguments_of(tmp_path / "0.onnx")
    wanted = "-e nnapi -x 1 -y 1 -i NNAPI_FLAG_CPU_DISABLED NNAPI_FLAG_USE_FP16 -I -S 0"
    assert timed.startswith(f"{wanted} -t 1 ") and profiled.startswith(f"{wanted} -r 1 -p ")


def test_perf_test_profiles_each_operation_of_each_inference(ask):
    reply = ask(PERF_TEST, ONNX, "plain", request=lambda model: ProfileOperations(model, PROTOCOL)).only(
        "operations"
    )
    assert [(row["name"], row["kind"]) for row in reply["operations"]] == [
        ("conv1", "Conv"), ("split", "Split"), ("conv1b", "Conv"),
    ]  # fmt: skip
    assert all(len(row["samples_ns"]) == PROTOCOL.min_count for row in reply["operations"])
    assert reply["total_ns"] == [1_000 * (152 + run) for run in range(PROTOCOL.min_count)]


def test_perf_test_reports_a_profile_that_is_cut(ask):
    reply = ask(PERF_TEST, ONNX, "cut-profile", request=lambda model: ProfileOperations(model, PROTOCOL))
    assert reply.only("failed")["code"] == "truncated-output"


def test_perf_test_reads_a_profile_that_onnxruntime_wrote(tiny_onnx, tmp_path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(str(tiny_onnx), options, providers=["CPUExecutionProvider"])
    for _ in range(4):
        session.run(None, {"x": np.zeros((1, 8), np.float32)})
    runs = list(parse_profile(Path(session.end_profiling()).read_text()))
    assert len(runs) == 4
    for run in runs:
        assert {where for _, _, where in run.nodes} == {"CPUExecutionProvider"}
        assert 0 <= sum(run.nodes.values()) <= run.total_ns


@pytest.mark.parametrize("text", ["", "[]x", "{}", '[{"name": "model_run"}]', "[1]"])
def test_perf_test_refuses_what_is_no_profile(text):
    with pytest.raises(ToolFailed):
        list(parse_profile(text) if text != "{}" else parse_profile('{"a": 1}'))


def test_perf_test_reads_small_times_and_skips_other_lines():
    lines = ["m,5.1234e-05,36696064,96,0", "a,b,0.00102,0,-1,1", "", "P50 Latency: 0.0587108 s", "m,0.1"]
    assert parse_samples(lines) == [51_234, 1_020_000]


def test_steady_keeps_to_the_most_that_the_protocol_wants():
    protocol = MeasuringProtocol(warmup_count=2, warmup_ns=0, max_count=3)
    assert steady([1, 2, 3, 4, 5, 6, 7], protocol) == [3, 4, 5]
    assert steady([1, 2], protocol) == []


@pytest.mark.parametrize("tool", sorted(path for path in STANDINS.rglob("*") if path.is_file()))
def test_standins_are_plain_posix_shell(tool):
    checked = subprocess.run(["sh", "-n", str(tool)], capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


# tools/fetch_native


@pytest.fixture
def served(tmp_path):
    """A web server with one file, and its digest."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "tool").write_bytes(b"a tool")
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/tool", file_digest(folder / "tool")
    server.shutdown()
    thread.join()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format, *arguments):
        pass


def fetch(*arguments):
    script = Path(__file__).parents[2] / "tools" / "fetch_native"
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, check=False
    )


def test_fetch_native_installs_a_file_with_the_pinned_digest(served):
    url, digest = served
    ended = fetch("benchmark_model", "android-aarch64", "--url", url, "--sha256", digest)
    assert (ended.returncode, ended.stderr) == (0, "")
    installed = native_tool("benchmark_model", "android-aarch64", {})
    assert installed.read_bytes() == b"a tool" and installed.stat().st_mode & 0o111


def test_fetch_native_installs_nothing_when_the_digest_differs(served):
    url, _ = served
    ended = fetch("benchmark_model", "android-aarch64", "--url", url, "--sha256", "0" * 64)
    assert ended.returncode == 1 and "not installed" in ended.stderr
    assert list((native_folder() / "android-aarch64").iterdir()) == []


def test_fetch_native_fetches_nothing_when_no_digest_is_pinned():
    ended = fetch("benchmark_model", "android-aarch64")
    assert ended.returncode == 1 and "--sha256" in ended.stderr and "bazel build" in ended.stderr
    assert not (native_folder() / "android-aarch64").exists()


def test_fetch_native_says_how_to_build_a_tool_that_nobody_publishes():
    ended = fetch("onnxruntime_perf_test", "android-aarch64")
    assert ended.returncode == 1 and "build.sh" in ended.stderr


def test_fetch_native_installs_a_file_of_the_users_own(tmp_path):
    own = tmp_path / "my build"
    own.write_bytes(b"mine")
    assert fetch("onnxruntime_perf_test", "linux-aarch64", "--file", str(own)).returncode == 0
    assert native_tool("onnxruntime_perf_test", "linux-aarch64", {}).read_bytes() == b"mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "file:///etc/hostname", "--sha256", "0" * 64),
        ("--url", "http://127.0.0.1:9/tool", "--sha256", "0" * 64),
        ("--url", "http://127.0.0.1:9/tool", "--sha256", "short"),
        ("--file", "/no/such/file"),
    ],
)
def test_fetch_native_explains_what_it_cannot_do(arguments):
    ended = fetch("benchmark_model", "android-aarch64", *arguments)
    assert ended.returncode == 1 and ended.stderr.startswith("fetch_native: ")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("platform_name", ["../other", "", "a/b"])
def test_fetch_native_refuses_a_platform_that_is_a_path(platform_name):
    assert fetch("benchmark_model", platform_name, "--file", __file__).returncode == 2


def test_every_published_tool_is_listed_with_a_digest_or_none():
    listed = fetch("list").stdout.splitlines()
    assert any("benchmark_model android-aarch64" in line for line in listed)
    assert all(re.search(r" (no pinned digest|[0-9a-f]{64}) https://", line) for line in listed)
