"""A recipe that goes through every stage in seconds: digits, one small stage of blocks, both runtimes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from pipeline.cli.main import app
from tests.quiet_machine import PROGRAM

TEXT = """
name = "tiny"
allow_chance = true  # three epochs teach such small students next to nothing

[data]
kind = "digits"
train_limit = 300

[[teacher]]
kind = "train"
width = 8
depth = 1

[teacher.training]
epochs = 3

[space]
stem_width = 8
head_width = 16
stages = [{ widths = [8, 12], depths = [1, 2], kernels = [3], expansions = [2, 3], squeeze_excite = [0.0] }]

[[target]]
name = "host/onnxruntime:fp32@1"
budget_ms = 1000

[[target]]
name = "host/litert:fp32@1"
budget_ms = 1000

[measure]
launches = 3
calibration_networks = 6

[search]
evaluations = 3
training = { epochs = 1 }

[distil]
epochs = 3

[verify]
launches = 6
"""

ONE_TARGET = TEXT.replace('[[target]]\nname = "host/litert:fp32@1"\nbudget_ms = 1000\n', "")

STAGES = (
    "data",
    "teacher",
    "space",
    "table",
    "feasibility",
    "known",
    "search",
    "distil",
    "export",
    "compile",
    "verify",
    "report",
    "bundle",
)


def write_recipe(folder: Path, text: str = TEXT) -> Path:
    """The recipe as a file."""
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


def command(recipe: Path, folder: Path, settings: Sequence[str] = (), what: str = "run") -> list[str]:
    """``lathe run`` or another command, with work folder and database below ``folder``."""
    places = ["--work", str(folder / "work"), "--db", str(folder / "latency.db")]
    options = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-c", PROGRAM, what, str(recipe), "--json", *places, *options]


def run_recipe(recipe: Path, folder: Path, settings: Sequence[str] = (), what: str = "run") -> dict[str, Any]:
    """Run to the end and return the printed document."""
    # In this process, so that coverage sees it.
    ended = CliRunner().invoke(app, command(recipe, folder, settings, what)[3:], catch_exceptions=False)
    assert ended.exit_code == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def run_limited(recipe: Path, folder: Path, file_bytes: int) -> subprocess.CompletedProcess[str]:
    """Run with a limit on the size of any file, which fails writes as a full disk does."""
    code = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({file_bytes}, r.RLIM_INFINITY)); {PROGRAM}"
    arguments = [sys.executable, "-c", code, *command(recipe, folder)[3:]]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def kill_at(recipe: Path, folder: Path, stage: str) -> bool:
    """Start a run and kill it as soon as the folder of ``stage`` is there; whether it was killed in time."""
    return kill_when(recipe, folder, lambda: any((folder / "work" / "stages").glob(f"{stage}-*")))


def kill_when(recipe: Path, folder: Path, reached: Callable[[], bool], timeout_s: float = 300) -> bool:
    """Start a run and kill it as soon as something is reached; whether it was killed in time."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command(recipe, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as run:
        deadline = time.monotonic() + timeout_s
        while run.poll() is None and time.monotonic() < deadline:
            if reached():
                run.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        return run.wait() == -signal.SIGKILL
