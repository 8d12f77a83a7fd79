"""Processes end with the one that starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from devices.host import end, start
from devices.host.processes import _guard

HANG_S = 60.0

PARENT = """
import sys, time
from devices.host import start
for _ in range(2):
    child = start(["sh", "-c", "sleep 600 & echo $!; exec sleep 600"], stdout=-1)
    print(child.pid, child.stdout.readline().decode().strip(), flush=True)
time.sleep(600)
"""
AT_ONCE = """
import threading, time
from devices.host import start
together = threading.Barrier(8)
def begin():
    together.wait()
    start(["sleep", "600"])
threads = [threading.Thread(target=begin) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
print("started", flush=True)
time.sleep(600)
"""
INTERRUPTED = """
from devices.host import Interrupted, end_all, interrupted, start
child = start(["sleep", "600"])
interrupted.set()
end_all()
print(child.wait())
try:
    start(["sleep", "600"])
except Interrupted:
    print("nothing new is begun")
"""


def gone(pids: list[int]) -> bool:
    """Whether all have ended, within a time that only a hang exceeds."""
    until = time.monotonic() + HANG_S
    while any(runs(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_all_that_a_process_started_ends_when_it_is_killed(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for _ in range(2) for word in parent.stdout.readline().split()]
        assert len(pids) == 4
        assert all(map(runs, pids))
        parent.send_signal(number)
    assert gone(pids)


def test_threads_that_start_the_first_processes_at_once_share_one_guardian() -> None:
    with subprocess.Popen([sys.executable, "-c", AT_ONCE], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        children = psutil.Process(parent.pid).children()
        names = sorted(each.name() for each in children)
        parent.kill()
    assert names == ["sh", *["sleep"] * 8]
    assert gone([each.pid for each in children])


def test_end_takes_what_the_process_started_with_it() -> None:
    process = start(["sh", "-c", "sleep 600 & echo $!; exec sleep 600"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    end(process)
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert gone([child])


def test_a_guardian_that_is_gone_is_replaced_and_knows_who_lives() -> None:
    first = start(["sleep", "600"])
    try:
        guardian = _guard._guardian
        assert guardian is not None
        os.kill(guardian.pid, signal.SIGKILL)
        assert gone([guardian.pid])
        second = start(["sleep", "600"])
        end(second)
        assert _guard._guardian is not guardian
        assert first.pid in _guard.groups()
    finally:
        end(first)


def test_an_interrupted_process_kills_what_it_started_and_starts_nothing_more() -> None:
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["-9", "nothing new is begun"]
