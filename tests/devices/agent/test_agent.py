from __future__ import annotations

import ast
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.agent import agent
from devices.measurement.conditions import conditions_from_json
from tests.contracts.runtime import QUICK
from tests.devices.hostile_runtime import hostile_runtime

FOLDER = Path(agent.__file__).parent
FILES = {name: str(path) for name, path in hostile_runtime().files().items()}
SETTINGS = {"threads": 1, "precision": "fp32", "options": {}, "delegate": "hostile"}
PROTOCOL = asdict(QUICK)


def test_agent_is_python_3_8_and_imports_none_of_our_packages():
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        text = ast.unparse(tree)
        for package in ("devices", "latency_db", "pipeline"):
            assert f"import {package}" not in text
            assert f"from {package}" not in text


def test_agent_says_fatal_when_the_engine_is_not_there():
    assert answers({"files": {**FILES, "engine": "/absent/engine.py"}})[0]["code"] == "runtime-broken"


@pytest.mark.parametrize(
    ("library", "imported", "code"),
    [
        (None, "odd_runtime", "runtime-missing"),
        (None, "odd_runtime.core", "runtime-missing"),
        ("", "odd_runtime.core", "runtime-broken"),
        ("import what_it_needs", "odd_runtime", "runtime-broken"),
        ("from ctypes import CDLL; CDLL('libodd.so.7')", "odd_runtime", "runtime-broken"),
        ("from json import no_such_name", "odd_runtime", "runtime-broken"),
    ],
)
def test_a_runtime_that_is_there_and_fails_to_load_is_not_called_missing(tmp_path, library, imported, code):
    if library is not None:
        (tmp_path / "odd_runtime").mkdir()
        (tmp_path / "odd_runtime" / "__init__.py").write_text(library)
    engine = tmp_path / "engine.py"
    engine.write_text(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport {imported}\n")
    (fatal,) = answers({"files": {**FILES, "engine": str(engine)}})
    assert fatal["code"] == code


def test_the_module_that_lacks_is_named(tmp_path):
    engine = tmp_path / "engine.py"
    engine.write_text("import sys\nsys.modules['numpy'] = None\nimport numpy\n")
    (fatal,) = answers({"files": {"engine": str(engine)}})
    assert fatal["lacking"] == "numpy"
    assert "numpy" in fatal["detail"]


def test_agent_imports_files_by_path_in_order_as_modules_of_one_package(tmp_path):
    (tmp_path / "1.py").write_text("LIMIT = 3\n")
    (tmp_path / "2.py").write_text("from .first import LIMIT\nfrom . import first\n")
    modules = agent.load({"first": str(tmp_path / "1.py"), "second": str(tmp_path / "2.py")})
    assert modules["second"].LIMIT == 3
    assert modules["second"].first is modules["first"]


def answers(request):
    """What the agent says to a request, with the rest of the request filled in."""
    request = {
        "command": "identify",
        "files": FILES,
        "settings": SETTINGS,
        "parent": None,
        "spawned_ns": None,
        **request,
    }
    ended = subprocess.run(
        [sys.executable, FOLDER / "agent.py"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    return [json.loads(line) for line in ended.stdout.splitlines()]


def job(path):
    """A file that is given nothing, as the agent is asked for it."""
    return {"artifact": str(path), "given": {}}


@pytest.mark.parametrize("cores", ["", "x", "0-", "7-3", "0,,1", "99999"])
def test_agent_says_fatal_when_cores_are_not_there(cores):
    (fatal,) = answers({"settings": {**SETTINGS, "options": {"cores": cores}}})
    assert (fatal["event"], fatal["code"]) == ("fatal", "bad-option")
    assert cores in fatal["detail"]


def test_agent_runs_on_the_cores_that_were_chosen():
    allowed = os.sched_getaffinity(0)
    try:
        agent.choose_cores(str(min(allowed)))
        assert os.sched_getaffinity(0) == {min(allowed)}
    finally:
        os.sched_setaffinity(0, allowed)


def test_agent_tells_its_process_start_when_the_clock_is_not_shared():
    ready = answers({})[0]
    assert ready["event"] == "ready"
    assert 0 < ready["process_start_ns"] < 60e9


def test_agent_says_failed_when_the_engine_has_no_profiler(tmp_path):
    (tmp_path / "a.script").write_text("run")
    request = {"command": "operations", "job": job(tmp_path / "a.script"), "protocol": PROTOCOL}
    assert answers(request)[-1]["code"] == "not-supported"


def test_agent_tells_of_each_window_when_load_is_sustained(tmp_path):
    (tmp_path / "a.script").write_text("run")
    request = {"command": "sustain", "job": job(tmp_path / "a.script"), "protocol": PROTOCOL}
    told = answers({**request, "duration_ns": 1_000_000_000, "window_ns": 100_000_000})
    windows = [event for event in told if event["event"] == "window"]
    assert told[-1]["event"] == "finished"
    assert len(windows) >= 2
    for window, later in itertools.pairwise(windows):
        assert window["start_ns"] + sum(window["samples_ns"]) <= later["start_ns"]
    assert all(conditions_from_json(window["conditions"]) for window in windows)


def test_agent_times_the_canary_first_in_the_middle_and_last(tmp_path):
    for name in "abcd":
        (tmp_path / name).write_text("run")
    jobs = [job(tmp_path / name) for name in "abcd"]
    request = {"command": "measure", "jobs": jobs, "canary": None, "protocol": PROTOCOL}
    kinds = [event["event"] for event in answers(request) if event["event"] in ("canary", "result")]
    assert kinds == ["canary", "result", "result", "canary", "result", "result", "canary"]


@settings(max_examples=20)
@given(
    min_count=st.integers(1, 20),
    max_count=st.integers(1, 20),
    min_ns=st.integers(0, 200_000),
    max_ns=st.integers(0, 200_000),
)
def test_time_steadily_stops_at_both_minima_or_at_a_cap(min_count, max_count, min_ns, max_ns):
    protocol = {"min_count": min_count, "max_count": max_count, "min_ns": min_ns, "max_ns": max_ns}
    calls = []
    start = time.perf_counter_ns()
    samples = agent.time_steadily(lambda: calls.append(1), protocol)
    wall_ns = time.perf_counter_ns() - start
    assert len(samples) == len(calls) <= max_count
    assert len(samples) >= min(min_count, max_count) or wall_ns >= max_ns
    assert len(samples) == max_count or wall_ns >= min(min_ns, max_ns)


@given(count=st.integers(0, 20), warmup_ns=st.integers(0, 200_000))
def test_warm_up_runs_for_both_count_and_time(count, warmup_ns):
    calls = []
    start = time.perf_counter_ns()
    agent.warm_up(
        lambda: calls.append(1), {"warmup_count": count, "warmup_ns": warmup_ns, "max_ns": 10_000_000_000}
    )
    assert len(calls) >= max(count, 1)
    assert time.perf_counter_ns() - start >= warmup_ns


def test_warm_up_stops_at_the_cap_when_a_model_is_slow():
    calls = []

    def run():
        calls.append(1)
        time.sleep(0.02)

    agent.warm_up(run, {"warmup_count": 1000, "warmup_ns": 0, "max_ns": 10_000_000})
    assert len(calls) == 1
