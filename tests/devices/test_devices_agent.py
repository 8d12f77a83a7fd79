from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import devices
from devices.conditions import conditions_from_json

FOLDER = Path(devices.__file__).parent / "agent"


@pytest.fixture(scope="module")
def agent():
    spec = importlib.util.spec_from_file_location("agent_under_test", FOLDER / "agent.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_agent_is_python_3_8_and_imports_none_of_our_packages():
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        text = ast.unparse(tree)
        for package in ("devices", "latency_db", "pipeline", "torch"):
            assert f"import {package}" not in text
            assert f"from {package}" not in text


def test_agent_says_fatal_when_the_engine_is_not_there():
    request = {"engine": "/absent/engine.py", "spawned_ns": time.monotonic_ns(), "command": "identify"}
    ended = subprocess.run(
        [sys.executable, FOLDER / "agent.py"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(ended.stdout)["code"] == "runtime-missing"


def test_conditions_are_read_without_error_and_parse_on_this_machine(agent):
    conditions = conditions_from_json(json.loads(json.dumps(agent.conditions())))
    assert conditions.load_1min is None or conditions.load_1min >= 0
    assert conditions.memory_available_bytes is None or conditions.memory_available_bytes > 0


def test_random_inputs_are_equal_when_the_seed_is_equal_and_differ_otherwise(agent):
    wanted = [((2, 3), "float32"), ((4,), "int64")]
    first, again, other = (agent.random_inputs(wanted, seed) for seed in (1, 1, 2))
    for array, same, (shape, dtype) in zip(first, again, wanted, strict=True):
        assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
        np.testing.assert_array_equal(array, same)
    assert (first[0] != other[0]).any()
    assert set(first[1].tolist()) <= {0, 1}


@settings(max_examples=20)
@given(
    min_count=st.integers(1, 20),
    max_count=st.integers(1, 20),
    min_ns=st.integers(0, 200_000),
    max_ns=st.integers(0, 200_000),
)
def test_time_steadily_stops_at_both_minima_or_at_a_cap(agent, min_count, max_count, min_ns, max_ns):
    protocol = {"min_count": min_count, "max_count": max_count, "min_ns": min_ns, "max_ns": max_ns}
    calls = []
    start = time.perf_counter_ns()
    samples = agent.time_steadily(lambda: calls.append(1), protocol)
    wall_ns = time.perf_counter_ns() - start
    assert len(samples) == len(calls) <= max_count
    assert len(samples) >= min(min_count, max_count) or wall_ns >= max_ns
    assert len(samples) == max_count or wall_ns >= min(min_ns, max_ns)


@given(count=st.integers(0, 20), warmup_ns=st.integers(0, 200_000))
def test_warm_up_runs_for_both_count_and_time(agent, count, warmup_ns):
    calls = []
    start = time.perf_counter_ns()
    agent.warm_up(
        lambda: calls.append(1), {"warmup_count": count, "warmup_ns": warmup_ns, "max_ns": 10_000_000_000}
    )
    assert len(calls) >= max(count, 1)
    assert time.perf_counter_ns() - start >= warmup_ns


def test_warm_up_stops_at_the_cap_when_a_model_is_slow(agent):
    calls = []

    def run():
        calls.append(1)
        time.sleep(0.02)

    agent.warm_up(run, {"warmup_count": 1000, "warmup_ns": 0, "max_ns": 10_000_000})
    assert len(calls) == 1


def test_peak_memory_counts_what_was_held(agent):
    agent.reset_peak_memory()
    before = agent.peak_memory_bytes()
    held = np.ones(64 << 20, np.uint8)
    assert agent.peak_memory_bytes() - before > 32 << 20
    assert held.any()
