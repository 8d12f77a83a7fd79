from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from devices.agent import machine
from devices.measurement.conditions import conditions_from_json
from tests.peak_memory import grown_bytes


@pytest.mark.parametrize(
    ("android", "kernel", "charging"),
    [
        ("1", "Unknown", None),
        ("2", "Charging", True),
        ("3", "Discharging", False),
        ("4", "Not charging", False),
        ("5", "Full", False),
    ],
)
def test_charging_means_the_same_by_the_agent_and_by_the_shell(android, kernel, charging):
    assert machine.is_charging(android) is machine.is_charging(kernel) is charging


def test_usage_sees_other_processes_and_this_one():
    usage = machine.UsageMeter()
    subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    used = usage.until_now()
    assert used["own_cpu_ns"] >= 100_000_000
    assert used["other_cpu_ns"] is None or used["other_cpu_ns"] >= 50_000_000
    assert used["wall_ns"] >= 100_000_000
    assert abs(used["clock_jump_ns"]) < used["wall_ns"]


def test_conditions_are_read_without_error_and_parse_on_this_machine():
    conditions = conditions_from_json(json.loads(json.dumps(machine.conditions())))
    assert conditions.load_1min is None or conditions.load_1min >= 0
    assert conditions.memory_available_bytes is None or conditions.memory_available_bytes > 0


def peak_rises_when_memory_is_held():
    machine.reset_peak_memory()
    before = machine.peak_memory_bytes()
    held = np.ones(64 << 20, np.uint8)
    assert machine.peak_memory_bytes() - before > 32 << 20
    assert held.any()


def test_peak_memory_counts_what_was_held():
    # Where the peak cannot be set back, that of an older process hides what is held.
    assert grown_bytes(peak_rises_when_memory_is_held) > 32 << 20


def test_the_run_queue_is_that_of_all_threads_since_the_meter_was_made():
    before = machine.QueueMeter().until_now()
    assert before is None or (before["waiting_ns"] >= 0 and before["slices"] >= 0)
    meter = machine.QueueMeter()
    sleeper = threading.Thread(target=lambda: [time.sleep(0.001) for _ in range(5)])
    sleeper.start()
    sleeper.join()
    [time.sleep(0.001) for _ in range(5)]
    told = meter.until_now()
    # Each sleep gives the processor back, so that this thread got one again at least so often.
    assert told is None or told["slices"] >= 5


def test_a_kernel_that_does_not_tell_of_the_run_queue_leaves_it_unknown(monkeypatch):
    monkeypatch.setattr(machine, "read", lambda path: None)
    assert machine.QueueMeter().until_now() is None
