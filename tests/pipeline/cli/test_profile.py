from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

import devices.measuring.batch
import devices.runtimes
from devices.errors import LatheError, MeasurementError, TargetError
from devices.measurement.measurement import Measurement, MeasurementFailure, Reason, Verdict
from devices.measuring import OtherLoad
from devices.measuring.comparison import Comparison
from devices.requests.operations import OperationProfile
from devices.requests.sustained import SustainedRun
from devices.result_file import read_results
from pipeline.cli.profile.arguments import compare, profile
from pipeline.errors import RecipeError
from tests.devices.hostile_runtime import hostile_runtime
from tests.devices.tiny_models import write_tiny_onnx, write_tiny_tflite
from tests.made_up_measurer import MadeUpMeasurer
from tests.places import ROOT
from tests.quiet_machine import be_quiet

ONNX, LITERT, HOSTILE = "host/onnxruntime:fp32@1", "host/litert:fp32@1", "host/hostile:fp32@1"

app = typer.Typer()
app.command()(profile)
app.command()(compare)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a test, where a runtime is at hand that does what its artifacts say."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(devices.runtimes, "RUNTIMES", (*devices.runtimes.RUNTIMES, hostile_runtime()))
    return tmp_path


def _lathe(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _error(kind: type[LatheError], *arguments: str) -> LatheError:
    with pytest.raises(kind) as caught:
        _lathe(*arguments)
    return caught.value


def _script(name: str, word: str = "run") -> str:
    Path(name).write_text(word)
    return name


def _write_slower_onnx(path: Path) -> None:
    """A product with a matrix of four million weights."""
    weight = numpy_helper.from_array(np.ones((2048, 2048), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "slower",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2048])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2048])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def _measure(*arguments: str) -> Result:
    return _lathe("profile", "--target", HOSTILE, "--launches", "1", *arguments)


def _results(*arguments: str) -> list[dict[str, Any]]:
    return json.loads(_measure("--json", *arguments).stdout)["results"]


def test_arguments_load_no_heavy_package() -> None:
    code = "import sys; import pipeline.cli.profile.arguments; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert not {"torch", "numpy", "pydantic", "devices"} & set(loaded.stdout.split())


def test_table_shows_latency_verdict_phases_memory_placement_and_identity() -> None:
    write_tiny_onnx(Path("tiny.onnx"))
    shown = _lathe("profile", "tiny.onnx", "--target", ONNX, "--launches", "1")
    assert shown.exit_code == 0
    lines = {line.split()[0]: line for line in shown.stdout.splitlines() if line.startswith("  ")}
    assert {"latency", "median", "p10,", "verdict", "start", "peak", "ran", "runtime", "device"} <= set(lines)
    assert " ms [" in lines["latency"]
    assert all(phase in lines["start"] for phase in ("process start", "load", "first inference"))
    assert "CPUExecutionProvider" in lines["ran"]
    assert "binary" in lines["runtime"]


def test_json_is_one_document_without_raw_samples() -> None:
    shown = _measure("--json", _script("a.script"), _script("b.script"))
    document = json.loads(shown.stdout)
    assert [result["model"] for result in document["results"]] == ["a.script", "b.script"]
    assert document["errors"] == []
    assert document["saved"] is None
    first = document["results"][0]
    assert first["kind"] == "measurement"
    assert 0 < first["latency_ns"]["low"] <= first["latency_ns"]["value"] <= first["latency_ns"]["high"]
    assert 0 < first["p10_ns"] <= first["p90_ns"]
    assert first["verdict"] in ("valid", "degraded", "invalid")
    assert first["placement"]["full"] is True
    assert "samples_ns" not in shown.stdout


@pytest.mark.slow
def test_a_verdict_that_is_not_valid_is_a_result_with_its_reasons() -> None:
    wandering = _script("a.script", f"wander {Path('turns').resolve()}")
    shown = _lathe("profile", wandering, "--target", HOSTILE, "--launches", "3")
    assert shown.exit_code == 0
    assert "INVALID, not to be relied on; " in shown.stdout
    assert "differ by" in shown.stdout


@pytest.mark.parametrize("command", [("profile", "a.script"), ("compare", "a.script", "b.script")])
@pytest.mark.parametrize("verdict", [Verdict.DEGRADED, Verdict.INVALID, Verdict.VALID])
def test_strict_makes_a_failure_of_a_measurement_that_is_not_valid(
    command: tuple[str, ...], verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_quiet(monkeypatch.setattr)
    reasons = () if verdict is Verdict.VALID else (Reason("launches-disagree", "launches differ by 40%"),)
    monkeypatch.setattr(devices.measuring.batch, "judge", lambda launches, protocol: (verdict, reasons))
    for name in command[1:]:
        _script(name)
    shown = _lathe(*command, "--target", HOSTILE, "--launches", "1", "--strict", "--json")
    document = json.loads(shown.stdout)
    assert len(document["results"]) == 1
    if verdict is Verdict.VALID:
        assert (shown.exit_code, document["errors"]) == (0, [])
        return
    assert shown.exit_code == MeasurementError.exit_code
    assert [error["model"] for error in document["errors"]] == list(command[1:])
    for error in document["errors"]:
        assert f"is {verdict.value}, and --strict is asked for" in error["what"]
        assert error["why"] == "launches differ by 40%"
        assert "--wait-for-quiet" in error["fix"]


@pytest.mark.parametrize(
    ("patience", "looks", "said"),
    [("10m", 5, "waiting up to 600 s for host to be quiet"), ("1s", 2, "host stays busy")],
)
def test_measuring_begins_when_the_device_is_quiet_or_patience_ends(
    monkeypatch: pytest.MonkeyPatch, patience: str, looks: int, said: str
) -> None:
    loads = [OtherLoad(2, 1.5)] * 5
    seconds = iter(np.arange(0.0, 100.0, 0.5))
    clock = SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda seconds: None)
    monkeypatch.setattr("latency_db.tables.quiet.time", clock)
    measurer = MadeUpMeasurer({}, loads=loads)
    monkeypatch.setattr("pipeline.cli.profile.command.default_measurer", lambda: measurer)
    shown = _measure("--wait-for-quiet", patience, _script("a.script"))
    assert shown.exit_code == 0
    assert said in shown.stderr
    assert len(loads) == 5 - looks


@pytest.mark.parametrize("word", ["refuse", "die", "exit", "raise", "exhaust", "die-loading"])
def test_a_model_that_fails_ends_with_seven_and_the_others_are_shown_and_saved(word: str) -> None:
    shown = _measure(_script("bad.script", word), _script("good.script"), "--save", "kept.json")
    assert shown.exit_code == 7
    assert "failed" in shown.stdout
    assert "good.script on host/hostile:fp32@1" in shown.stdout
    kept = {entry.models[0]: entry.result for entry in read_results(Path("kept.json")).entries}
    assert isinstance(kept["bad.script"], MeasurementFailure)
    assert isinstance(kept["good.script"], Measurement)


def test_a_fallback_is_shown_and_fails_only_on_demand() -> None:
    model = _script("partly.script", "fall-back")
    shown = _measure(model)
    assert shown.exit_code == 0
    assert "NOT all on hostile" in shown.stdout
    strict = _measure(model, "--require-full-delegation")
    assert strict.exit_code == 7
    assert "fallback" in strict.stdout


def test_each_model_is_measured_where_it_can_be_loaded() -> None:
    write_tiny_onnx(Path("tiny.onnx"))
    write_tiny_tflite(Path("tiny.tflite"))
    shown = _lathe(
        "profile",
        "tiny.onnx",
        "tiny.tflite",
        *("--target", ONNX, "--target", LITERT, "--target", ONNX),
        *("--launches", "1", "--json"),
    )
    results = json.loads(shown.stdout)["results"]
    assert [(result["model"], result["target"]) for result in results] == [
        ("tiny.onnx", ONNX),
        ("tiny.tflite", LITERT),
    ]


def test_a_model_for_no_target_and_a_target_without_models_are_told_and_the_rest_is_measured() -> None:
    write_tiny_onnx(Path("tiny.onnx"))
    error = _error(MeasurementError, "profile", "tiny.onnx", "--target", LITERT)
    assert "tiny.onnx" in error.what
    assert ".tflite" in error.why
    shown = _measure(_script("a.script"), "tiny.onnx", "--target", LITERT, "--json")
    document = json.loads(shown.stdout)
    assert [result["model"] for result in document["results"]] == ["a.script"]
    assert [(error["model"], error["target"]) for error in document["errors"]] == [
        ("tiny.onnx", None),
        (None, LITERT),
    ]
    assert shown.exit_code == 7


def test_a_suffix_may_be_written_in_capitals() -> None:
    write_tiny_onnx(Path("TINY.ONNX"))
    shown = _lathe("profile", "TINY.ONNX", "--target", ONNX, "--launches", "1", "--json")
    assert [result["model"] for result in json.loads(shown.stdout)["results"]] == ["TINY.ONNX"]


@pytest.mark.parametrize(
    "name", ["two words.script", "quote'\".script", "new\nline.script", "-dash.script", "$(x);`y`.script"]
)
def test_odd_file_names_are_measured(name: str) -> None:
    _script(name)
    shown = _measure("--json", "--", name)
    assert [result["model"] for result in json.loads(shown.stdout)["results"]] == [name]


def test_what_a_terminal_would_act_on_is_shown_escaped() -> None:
    shown = _measure(_script("bell\x07\nesc\x1b[2J.script"))
    assert r"bell\x07\nesc\x1b[2J.script on" in shown.stdout
    assert "\x1b" not in shown.stdout + shown.stderr


def test_a_name_that_is_not_unicode_is_measured_and_saved() -> None:
    name = os.fsdecode(b"odd\xff.script")
    shown = _measure(_script(name), "--save", "kept.json")
    assert shown.exit_code == 0
    assert r"odd\udcff.script" in shown.stdout
    assert read_results(Path("kept.json")).entries[0].models == (r"odd\udcff.script",)


def test_files_of_one_stem_are_kept_apart() -> None:
    for folder in ("one", "two"):
        Path(folder).mkdir()
    results = _results(_script("one/net.script"), _script("two/net.script"), _script("net.script"))
    assert [result["model"] for result in results] == ["one/net.script", "two/net.script", "net.script"]


def test_a_file_that_is_named_twice_is_measured_once() -> None:
    Path("link.script").symlink_to("a.script")
    shown = _measure(_script("a.script"), "./a.script", "link.script", "--json")
    assert len(json.loads(shown.stdout)["results"]) == 1
    assert "link.script is a.script once more" in shown.stderr


def test_a_missing_file_and_an_unknown_runtime_keep_nothing_else_from_being_measured() -> None:
    shown = _measure(_script("a.script"), "none.script", "--target", "host/nonsense:fp32@1", "--json")
    document = json.loads(shown.stdout)
    assert [result["model"] for result in document["results"]] == ["a.script"]
    assert [(error["model"], error["target"], error["exit_code"]) for error in document["errors"]] == [
        (None, "host/nonsense:fp32@1", 6),
        ("none.script", None, 7),
    ]
    assert shown.exit_code == 6
    assert "there is no file 'none.script'" in shown.stderr
    Path("folder.script").mkdir()
    assert _error(MeasurementError, "profile", "folder.script", "--target", ONNX).why == "it is a folder"


def test_unknown_targets_are_refused() -> None:
    _script("a.script")
    for target in ("nonsense", "mars/onnxruntime:fp32@1", "host/nonsense:fp32@1", "host/hostile:int8@1"):
        assert _error(TargetError, "profile", "a.script", "--target", target).exit_code == 6


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "1e9"])
def test_a_time_that_makes_no_sense_is_refused(minutes: str) -> None:
    arguments = ("profile", _script("a.script"), "--target", HOSTILE, f"--sustained={minutes}")
    assert _error(RecipeError, *arguments).exit_code == 2


@pytest.mark.parametrize("arguments", [["profile"], ["profile", "a"], ["compare", "a", "--target", ONNX]])
def test_wrong_usage_ends_with_two(arguments: list[str]) -> None:
    assert _lathe(*arguments).exit_code == 2


def test_launches_must_be_at_least_one() -> None:
    assert _lathe("profile", _script("a.script"), "--target", HOSTILE, "--launches", "0").exit_code == 2


def test_an_existing_file_stays_and_nothing_is_measured() -> None:
    Path("kept.json").write_text("precious")
    arguments = ("profile", _script("a.script"), "--target", HOSTILE, "--save", "kept.json")
    assert "exists already" in _error(MeasurementError, *arguments).what
    assert Path("kept.json").read_text() == "precious"


def test_one_target_that_is_gone_does_not_keep_the_other_from_being_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Path("gone_engine.py")
    engine.write_text("import no_such_runtime")
    gone = replace(hostile_runtime(), name="gone", engine=engine.resolve())
    monkeypatch.setattr(devices.runtimes, "RUNTIMES", (*devices.runtimes.RUNTIMES, gone))
    shown = _measure(_script("a.script"), "--target", "host/gone:fp32@1", "--json")
    document = json.loads(shown.stdout)
    assert [result["target"] for result in document["results"]] == [HOSTILE]
    assert [error["target"] for error in document["errors"]] == ["host/gone:fp32@1"]
    assert shown.exit_code == document["errors"][0]["exit_code"] == 6
    assert "not installed" in shown.stderr
    with pytest.raises(TargetError, match="not installed"):
        _lathe("profile", "a.script", "--target", "host/gone:fp32@1", "--save", "kept.json")
    assert not Path("kept.json").exists()


def test_operations_have_shares_that_add_up_and_kinds() -> None:
    write_tiny_onnx(Path("tiny.onnx"))
    arguments = ("profile", "tiny.onnx", "--target", ONNX, "--launches", "1", "--ops")
    shown = _lathe(*arguments, "--json", "--save", "kept.json")
    assert shown.exit_code == 0
    headline, operations = json.loads(shown.stdout)["results"]
    assert (headline["kind"], operations["kind"]) == ("measurement", "operations")
    assert math.isclose(sum(operation["share"] for operation in operations["operations"]), 1)
    assert math.isclose(sum(part["share"] for part in operations["by_kind"]), 1)
    assert isinstance(read_results(Path("kept.json")).entries[1].result, OperationProfile)
    text = _lathe(*arguments).stdout
    assert "together" in text
    assert "100.0%" in text
    assert "a profiled run is slower" in text


def test_a_runtime_without_a_profiler_leaves_the_latency_standing() -> None:
    shown = _measure(_script("a.script"), "--ops", "--json")
    document = json.loads(shown.stdout)
    assert [result["kind"] for result in document["results"]] == ["measurement"]
    assert "not-supported" in document["errors"][0]["what"]
    assert shown.exit_code == 7


def test_a_sustained_run_is_a_record_of_its_own() -> None:
    shown = _measure(_script("a.script"), "--sustained", "0.01", "--json", "--save", "kept.json")
    headline, sustained = json.loads(shown.stdout)["results"]
    assert (headline["kind"], sustained["kind"]) == ("measurement", "sustained")
    assert sustained["said"]
    assert len(sustained["windows"]) >= 6
    kept = read_results(Path("kept.json")).entries[1].result
    assert isinstance(kept, SustainedRun)
    assert sum(len(window.samples_ns) for window in kept.windows) > 1000
    text = _measure("a.script", "--sustained", "0.01").stdout
    assert "sustained" in text
    assert "beside the first" in text


@pytest.mark.slow
def test_compare_says_which_is_faster_and_saves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # However busy the machine of the tests is, no launch is void.
    monkeypatch.setattr(devices.measuring.batch, "mark", lambda launches, protocol, *, cores: tuple(launches))
    write_tiny_onnx(Path("fast.onnx"))
    _write_slower_onnx(Path("slow.onnx"))
    arguments = ("compare", "slow.onnx", "fast.onnx", "--target", ONNX, "--launches", "6")
    shown = _lathe(*arguments, "--json", "--save", "kept.json")
    assert shown.exit_code == 0
    document = json.loads(shown.stdout)["results"][0]
    assert document["ratio"]["value"] < 0.5
    assert document["first"]["model"] == "slow.onnx"
    kept = read_results(Path("kept.json")).entries[0]
    assert kept.models == ("slow.onnx", "fast.onnx")
    assert isinstance(kept.result, Comparison)
    assert document["finding"] == "slower"
    assert "slow.onnx is slower than fast.onnx by" in document["said"]


def test_compare_cannot_tell_when_one_fails_and_shows_the_other() -> None:
    shown = _lathe(
        "compare", _script("a.script"), _script("b.script", "refuse"), "--target", HOSTILE, "--launches", "1"
    )
    assert shown.exit_code == 7
    assert "cannot tell whether a.script or b.script is faster" in shown.stdout
    assert "load-failed" in shown.stdout
    assert "latency" in shown.stdout


def test_compare_refuses_two_targets_and_names_the_command_that_takes_them() -> None:
    write_tiny_tflite(Path("tiny.tflite"))
    write_tiny_onnx(Path("tiny.onnx"))
    error = _error(RecipeError, "compare", "tiny.onnx", "tiny.tflite", "--target", ONNX, "--target", LITERT)
    assert "one target" in error.what
    assert f"lathe profile tiny.onnx tiny.tflite --target {ONNX} --target {LITERT}" in error.fix


def test_compare_refuses_missing_and_unsuitable_files() -> None:
    write_tiny_tflite(Path("tiny.tflite"))
    error = _error(MeasurementError, "compare", "none.onnx", "tiny.tflite", "--target", LITERT)
    assert "none.onnx" in error.what
    write_tiny_onnx(Path("tiny.onnx"))
    error = _error(MeasurementError, "compare", "tiny.tflite", "tiny.onnx", "--target", LITERT)
    assert "tiny.onnx" in error.what


def test_a_model_that_is_a_program_is_not_loaded_before_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    measured: list[str] = []
    monkeypatch.setattr("pipeline.cli.profile.command.measure", _as_if_measured(measured))
    Path("model.pt2").write_bytes(b"a program")
    arguments = ("profile", "model.pt2", "--target", "host/torch:fp32@1")
    assert "is a program" in _error(MeasurementError, *arguments).what
    assert not measured
    assert _lathe(*arguments, "--trust").exit_code == MeasurementError.exit_code
    assert _lathe(*arguments).exit_code == MeasurementError.exit_code
    assert measured == ["model.pt2", "model.pt2"]


def _as_if_measured(measured: list[str]) -> Callable[..., dict[str, Any]]:
    def measure(jobs: list[Any], target: Any, *_: Any, **__: Any) -> dict[str, Any]:
        measured.extend(job.name for job in jobs)
        reason = Reason("load-failed", "nothing was loaded")
        return {job.name: MeasurementFailure("0" * 64, str(target), reason) for job in jobs}

    return measure
