"""What processes do with devices is seen by others, as long as they live, and never stops a measurement."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from devices.connections import LocalConnection
from devices.locking import doings_here
from devices.locking.doing import FOLDER, Doing, Note, now
from devices.locking.lock import device_lock
from devices.locking.queue import machine_folder
from devices.measurement.conditions import Conditions
from devices.measuring import Job, measure
from devices.target import Target
from tests.contracts.runtime import QUICK
from tests.places import ROOT

HOLD = """
import sys, time
from devices.connections import LocalConnection
from devices.locking.lock import device_lock
with device_lock("host", LocalConnection(), what="host/litert:fp32@1"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_tells_what_is_done_who_does_it_and_how_the_device_is() -> None:
    with device_lock("host", LocalConnection(), what="host/litert:fp32@1") as lock:
        (doing,) = doings_here()
        assert (doing.device, doing.what, doing.holds) == ("host", "host/litert:fp32@1", True)
        assert f"process {os.getpid()}" in doing.who
        lock.tell_conditions(
            Conditions(temperature_millicelsius=(40_000, 51_000), battery_percent=80, charging=True)
        )
        lock.tell(done=3, total=9, waiting_for="")
        (doing,) = doings_here()
        assert (doing.done, doing.total) == (3, 9)
        assert (doing.temperature_millicelsius, doing.battery_percent, doing.charging) == (51_000, 80, True)
        assert doing.read_at
    assert doings_here() == ()
    lock.tell(done=4)
    assert not list((machine_folder() / FOLDER).iterdir())


def test_who_waits_says_for_whom_and_the_kernel_takes_away_what_a_killed_process_said() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=environment)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    got, leave = threading.Event(), threading.Event()

    def wait() -> None:
        with device_lock("host", LocalConnection(), what="another", wait_s=60):
            got.set()
            leave.wait(60)

    waiter = threading.Thread(target=wait)
    waiter.start()
    try:
        while not (found := [each for each in doings_here() if each.waiting_for]):
            threading.Event().wait(0.02)
        assert found[0].what == "another" and not found[0].holds
        assert f"process {other.pid} holds it since" in found[0].waiting_for
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert got.wait(60)
        (mine,) = doings_here()
        assert (mine.holds, mine.waiting_for) == (True, "")
    finally:
        leave.set()
        waiter.join()
        other.kill()
        other.stdout.close()


def test_what_others_write_is_read_as_text_or_not_at_all(tmp_path: Path) -> None:
    assert not list(tmp_path.iterdir())
    with_escape = Note(tmp_path, Doing("host", "me\x1b[31m\nyou", "", now()))
    broken = [Note(tmp_path, Doing("host", "me", "", now())) for _ in range(3)]
    for note, text in zip(broken, (b"\xff\xfe", b'{"device": 3}', json.dumps([1]).encode()), strict=True):
        os.pwrite(note._file, text.ljust(4096), 0)
    (tmp_path / FOLDER / "1.link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / FOLDER / "1.fifo")
    from devices.locking.doing import doings

    assert [each.who for each in doings(tmp_path)] == ["me [31m you"]
    # Of a version that knows more.
    newer = json.dumps({**asdict(Doing("host", "newer", "", now())), "battery_cycles": 7}).encode()
    os.pwrite(broken[0]._file, newer.ljust(4096), 0)
    assert [each.who for each in doings(tmp_path) if "me" not in each.who] == ["newer"]
    for note in (with_escape, *broken):
        note.close()


def test_a_note_that_cannot_be_written_harms_no_measurement(
    tmp_path: Path, hostile: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.script"
    path.write_text("run")
    (machine_folder() / FOLDER).write_text("a file where the folder should be")
    outcome = measure([Job("a", path)], hostile, QUICK)["a"]
    assert len(outcome.launches) == QUICK.launches


def test_a_measurement_tells_its_target_and_how_far_it_is(tmp_path: Path, hostile: Target) -> None:
    jobs = []
    for name in "abc":
        jobs.append(Job(name, tmp_path / f"{name}.script"))
        jobs[-1].artifact.write_text("run")
    seen: list[Doing] = []
    measure(jobs, hostile, QUICK, on_progress=lambda done, total: seen.extend(doings_here()))
    assert {each.what for each in seen} == {"host/hostile:fp32@1"}
    assert all(each.holds and each.total in (0, 6) for each in seen)
    assert doings_here() == ()
