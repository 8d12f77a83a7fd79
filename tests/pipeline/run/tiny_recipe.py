"""A recipe that goes through every stage in seconds: digits, one small stage of blocks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lathe_process import run_here

ONE_TARGET = """
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

TWO_TARGETS = ONE_TARGET.replace(
    "[measure]", '[[target]]\nname = "host/litert:fp32@1"\nbudget_ms = 1000\n\n[measure]'
)

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


def write_recipe(folder: Path, text: str = ONE_TARGET) -> Path:
    """The recipe as a file."""
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


def command(recipe: Path, folder: Path, settings: Sequence[str] = (), what: str = "run") -> list[str]:
    """Arguments of ``lathe run`` or another command, with work folder and database below ``folder``."""
    places = ["--work", str(folder / "work"), "--db", str(folder / "latency.db")]
    options = [part for setting in settings for part in ("--set", setting)]
    return [what, str(recipe), "--json", *places, *options]


def run_recipe(recipe: Path, folder: Path, settings: Sequence[str] = (), what: str = "run") -> dict[str, Any]:
    """Run to the end in this process and return the printed document."""
    ended = run_here(*command(recipe, folder, settings, what))
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document
