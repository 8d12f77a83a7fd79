from __future__ import annotations

from dataclasses import replace

import pytest

from devices.errors import MeasurementError, TargetError
from devices.inputs import Fill, Given, GivenInput
from devices.measurement.measurement import Measurement, MeasurementFailure, Placed
from devices.measuring import Job, measure
from devices.measuring.agreement import canary_ns
from devices.requests import sustain
from devices.runtimes.base import Measure, ProfileOperations
from devices.runtimes.native.benchmark_model import BENCHMARK_MODEL, parse_operations, parse_summary
from tests.devices.runtimes.native.native_targets import LITERT, PROTOCOL, arguments_of


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


def test_a_model_that_is_faster_than_the_tools_clock_fails_and_says_so(tmp_path):
    for name in ("fast", "plain"):
        (tmp_path / f"{name}.tflite").write_text(f"{'too-fast' if name == 'fast' else name}\n")
    jobs = [Job(name, tmp_path / f"{name}.tflite") for name in ("fast", "plain")]
    outcomes = measure(jobs, LITERT, replace(PROTOCOL, launches=1, max_launches=1))
    assert isinstance(outcomes["fast"], MeasurementFailure)
    assert outcomes["fast"].reason.code == "too-fast"
    assert "clock" in outcomes["fast"].reason.detail
    assert isinstance(outcomes["plain"], Measurement)
    with pytest.raises(MeasurementError, match="too-fast"):
        sustain(jobs[0].artifact, LITERT, PROTOCOL, 200_000_000)


def test_a_window_of_a_sustained_run_counts_the_inferences_that_the_tool_made(tmp_path):
    (tmp_path / "plain.tflite").write_text("plain\n")
    run = sustain(tmp_path / "plain.tflite", LITERT, PROTOCOL, 200_000_000)
    # the stand-in makes as many inferences as it is told to make at least, which is one for a window
    assert {(window.count, window.samples_ns) for window in run.windows} == {(1, (28_001_000,))}


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


def test_the_canary_tells_how_fast_a_phone_is():
    assert canary_ns(LITERT) == 28_001_000


def shaped(**shapes):
    return Given(tuple(GivenInput(name, shape) for name, shape in shapes.items()))


def test_benchmark_model_is_given_shapes_and_they_are_told(ask, tmp_path, without_canary):
    given = shaped(image=(1, 64, 64, 3), size=(1, 2))
    result = ask(
        BENCHMARK_MODEL, LITERT, "record", request=lambda *models: Measure(models, PROTOCOL, (given,))
    ).only("result")
    assert {"--input_layer=image,size", "--input_layer_shape=1,64,64,3:1,2"} <= set(
        arguments_of(tmp_path / "0.tflite")
    )
    assert [(each["name"], tuple(each["shape"]), each["given"]) for each in result["inputs"]] == [
        ("image", (1, 64, 64, 3), True),
        ("size", (1, 2), True),
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Given((GivenInput("x", None, Fill("ones")),)), "values of x cannot be given"),
        (Given(signature="encode"), "a signature cannot be given"),
        (shaped(**{"a,b": (1, 2)}), "whose name is 'a,b'"),
    ],
)
def test_benchmark_model_refuses_what_it_cannot_be_told(ask, without_canary, given, says):
    failed = ask(
        BENCHMARK_MODEL, LITERT, "plain", request=lambda *models: Measure(models, PROTOCOL, (given,))
    ).only("failed")
    assert failed["code"] == "not-supported"
    assert says in failed["detail"]


def test_a_sweep_on_a_device_without_python_has_a_result_for_each_shape(tmp_path):
    (tmp_path / "plain.tflite").write_text("plain\n")
    jobs = [Job(str(size), tmp_path / "plain.tflite", shaped(x=(1, size))) for size in (32, 64)]
    outcomes = measure(jobs, LITERT, replace(PROTOCOL, launches=1, max_launches=1))
    assert [each.inputs[0].shape for each in outcomes.values()] == [(1, 32), (1, 64)]
