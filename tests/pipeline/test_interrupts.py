"""Real signals to real trainings: they end, say how to go on, leave no process, and go on where they were."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors import safe_open

from tests.places import ROOT

HANG_S = 240.0

CHECKPOINTS = {
    "teacher": "stages/teacher-*/*.checkpoint",
    "distil": "stages/distil-*/checkpoint.pt",
    "dna": "stages/block-training-*/checkpoint.safetensors",
}
DOING = {
    "teacher": "training the teacher",
    "distil": "distilling the student",
    "dna": "scoring the blocks",
}


def epochs_of(path: Path) -> int:
    """How many epochs are in a checkpoint."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return len(json.loads(file.metadata()["losses"]))
    return len(torch.load(path, weights_only=True)["history"])


def progress(what: str, folder: Path) -> dict[Path, int]:
    """Epochs by checkpoint."""
    return {path: epochs_of(path) for path in folder.glob(CHECKPOINTS[what])}


def interrupt(number: signal.Signals, what: str, folder: Path, when: Callable[[], bool]) -> tuple[int, str]:
    """Send a signal to a training when it is as far as that: exit code and last words."""
    command = [sys.executable, "-m", "tests.pipeline.long_work", what, str(folder)]
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + HANG_S
        while not when():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, said = process.communicate(timeout=HANG_S)
    _, alive = psutil.wait_procs(children, timeout=HANG_S)
    assert not alive
    assert what != "dna" or len(children) >= 2
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize("what", CHECKPOINTS)
def test_a_signal_ends_a_training_and_the_next_goes_on_where_it_was(what: str, tmp_path: Path) -> None:
    parts = 2 if what == "dna" else 1
    code, said = interrupt(signal.SIGINT, what, tmp_path, lambda: len(progress(what, tmp_path)) == parts)
    assert code == 130
    assert f"interrupted by SIGINT while {DOING[what]}" in said
    assert "Why: what was finished is kept" in said
    assert "Fix: run the same command again: it continues from there" in said
    assert "Traceback" not in said
    before = progress(what, tmp_path)
    assert min(before.values()) >= 1
    seen: list[dict[Path, int]] = []

    def has_gone_on() -> bool:
        seen.append(progress(what, tmp_path))
        return all(seen[-1][path] > epochs for path, epochs in before.items())

    code, said = interrupt(signal.SIGTERM, what, tmp_path, has_gone_on)
    assert code == 143
    assert "interrupted by SIGTERM" in said
    # It never was behind: nothing was begun anew.
    assert all(found[path] >= epochs for found in seen for path, epochs in before.items())
    assert progress(what, tmp_path).keys() == before.keys()
