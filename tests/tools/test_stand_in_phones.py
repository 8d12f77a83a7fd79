"""Two phones behind the real adb client measure as a pool, and one may go away."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.measurement import Measurement
from devices.measuring import Job, measure
from devices.measuring.agreement import gather
from devices.measuring.probing import probe
from devices.target import Target
from tests.contracts.connection import wait_until
from tests.contracts.runtime import QUICK
from tests.places import ROOT


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if shutil.which("adb") is None:
        pytest.skip("adb is not installed (Debian: adb)")
    command = [sys.executable, "-m", "tools.stand_in_phones", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    assert process.stderr.readline() == f"export LATHE_DEVICES={tmp_path / 'devices.toml'}\n"
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))
    monkeypatch.setenv("LATHE_STATE_DIR", str(tmp_path / "state"))
    gather.cache_clear()
    probe.cache_clear()
    yield tmp_path
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_machine")
def test_two_phones_share_what_there_is_to_measure(folder: Path) -> None:
    jobs = []
    for number in range(6):
        jobs.append(Job(f"job {number}", folder / f"{number}.tflite"))
        jobs[-1].artifact.write_bytes(bytes(10_000 * (number + 1)))
    outcomes = measure(jobs, Target("phones", "litert"), QUICK)
    found = [each for each in outcomes.values() if isinstance(each, Measurement)]
    assert [round(each.latency.value_ns) for each in found] == [(140 + 100 * n) * 1000 for n in range(6)]
    by_target = {each.target: each.device.instance for each in found}
    assert by_target == {
        f"phone-{number}/litert:fp32@1": hashlib.sha256(f"phone-{number}".encode()).hexdigest()
        for number in (1, 2)
    }
    assert wait_until(lambda: not list(folder.glob("phone-*/files/lathe-scratch-*"))), "nothing is left there"
