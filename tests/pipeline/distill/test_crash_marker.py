from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.distill.crash_marker import told_next_time

SCRIPT = Path(__file__).with_name("guarded_training.py")


def test_a_training_ended_by_a_signal_is_told_of_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "checkpoint"), "3"]
    killed = subprocess.run([*command, "2"], check=False, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGSEGV
    again = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    told, trained = again.stdout.splitlines()
    assert told.startswith("training the teacher (process ")
    assert "died in the middle" in told
    assert told.endswith("it continues from its last epoch")
    assert trained == "trained 2"
    assert not list(tmp_path.glob("*.running"))


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_an_exception_is_no_sudden_death(tmp_path: Path, raised: type[BaseException]) -> None:
    told: list[str] = []
    with pytest.raises(raised), told_next_time(tmp_path / "checkpoint", "training", told.append):
        raise raised
    with told_next_time(tmp_path / "checkpoint", "training", told.append):
        pass
    assert told == []


def test_a_damaged_marker_is_told_of_without_details(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.running").write_text("[")
    told: list[str] = []
    with told_next_time(tmp_path / "checkpoint", "training", told.append):
        pass
    assert told[0].startswith("the last training died in the middle")
    assert told[0].endswith("it starts again, no epoch was finished")
