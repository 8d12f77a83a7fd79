"""What all of the makers' tools do."""

from __future__ import annotations

import platform
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from devices.connections import LocalConnection
from devices.connections.base import Completed
from devices.digests import file_digest
from devices.errors import MeasurementError, TargetError
from devices.measurement.conditions import conditions_from_json
from devices.measurement.measurement import DeviceIdentity, Measurement, MeasurementFailure
from devices.measuring.batch import Job, measure
from devices.runtimes import find_runtime
from devices.runtimes.base import Identify, Measure, Predict, Sustain
from devices.runtimes.native.base import core_mask
from devices.runtimes.native.benchmark_model import BENCHMARK_MODEL
from devices.runtimes.native.perf_test import PERF_TEST
from devices.runtimes.native.tools import native_tool
from tests.devices.runtimes.native.native_targets import LITERT, ONNX, PROTOCOL, STANDINS, arguments_of

BOTH = pytest.mark.parametrize(
    ("runtime", "target"), [(BENCHMARK_MODEL, LITERT), (PERF_TEST, ONNX)], ids=["litert", "onnxruntime"]
)


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
    reply = ask(runtime, target, "hang", "plain", silence_s=8.0)
    assert (reply.only("failed")["job"], reply.only("failed")["code"]) == (0, "timeout")
    assert reply.only("result")["job"] == 1


@BOTH
def test_measure_ends_as_timed_out_when_the_whole_time_is_up(runtime, target, ask, without_canary):
    reply = ask(runtime, target, "hang", "plain", timeout_s=3.0)
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
        ask(runtime, target, "plain", request=lambda model: Predict(model, (tmp_path,), tmp_path))
    assert "Python" in caught.value.fix


@BOTH
def test_sustain_reports_windows_until_the_time_is_over(runtime, target, ask):
    reply = ask(
        runtime, target, "plain", request=lambda model: Sustain(model, PROTOCOL, 2_000_000_000, 50_000_000)
    )
    windows = reply.all("window")
    assert len(windows) >= 2 and reply.only("finished")
    starts = [window["start_ns"] for window in windows]
    assert starts == sorted(starts) and starts[-1] < 2_000_000_000
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


@pytest.mark.parametrize("tool", sorted(path for path in STANDINS.rglob("*") if path.is_file()))
def test_standins_are_plain_posix_shell(tool):
    checked = subprocess.run(["sh", "-n", str(tool)], capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("tool", "said", "instead"),
    [
        ("benchmark_model", "Init: 12345", "Init: 1.2.3"),
        ("benchmark_model", "First inference: 31000", "First inference: 1e999"),
        ("benchmark_model", "monitoring: 93.2383", "monitoring: e"),
        ("benchmark_model", "median=%s", "median=%s.2.3"),
        ("benchmark_model", "count=%s first", f"count=%s{'9' * 5000} first"),
        ("onnxruntime_perf_test", "creation time cost: 0.0102016", "creation time cost: 1.2.3"),
        ("onnxruntime_perf_test", "time=0.01020$((number % 10))", "time=1e+999"),
        ("onnxruntime_perf_test", "set size: 36696064", f"set size: {'9' * 5000}"),
        ("onnxruntime_perf_test", "inference requests: $count", f"inference requests: {'9' * 5000}"),
    ],
)
def test_measure_fails_when_a_tool_says_numbers_that_are_none(
    ask, tools, without_canary, tool, said, instead
):
    path = tools / tool
    assert said in path.read_text()
    path.write_text(path.read_text().replace(said, instead))
    choice = (BENCHMARK_MODEL, LITERT) if tool == "benchmark_model" else (PERF_TEST, ONNX)
    assert ask(*choice, "plain").only("failed")["code"] == "malformed-answer"
