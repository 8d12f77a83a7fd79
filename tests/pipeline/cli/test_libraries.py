from __future__ import annotations

import os
import subprocess
import sys

from devices.connections import LocalConnection
from pipeline.cli.libraries import let_waiting_threads_sleep


def test_waiting_threads_sleep_in_training_and_not_in_measurements(monkeypatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    let_waiting_threads_sleep()
    show = [sys.executable, "-c", "import os; print(os.environ.get('OMP_WAIT_POLICY'))"]
    assert subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip() == "PASSIVE"
    lines: list[str] = []
    LocalConnection().run(show, timeout_s=60, on_line=lines.append)
    assert [line.strip() for line in lines] == ["None"]


def test_the_users_own_choice_stays(monkeypatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
