from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from devices.measurement.measurement import Placed
from devices.measurement.protocol import MeasuringProtocol
from devices.runtimes.base import ProfileOperations
from devices.runtimes.native.base import ToolFailed
from devices.runtimes.native.perf_test import PERF_TEST, parse_profile, parse_samples, steady
from tests.devices.runtimes.native.native_targets import ONNX, PROTOCOL, arguments_of


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


@pytest.mark.parametrize(
    "text",
    ["", "[]x", "{}", '[{"name": "model_run"}]', "[1]", "[" * 100_000, '[{"ts": Infinity}]'],
    ids=range(7),
)
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
