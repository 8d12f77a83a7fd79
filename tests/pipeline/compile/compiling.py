"""Models compiled with made-up times, among few variants: each takes a second to make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.compile import (
    CompiledModel,
    Place,
    Raced,
    Wish,
    compile_model,
)
from pipeline.progress import Reporter, SilentReporter
from pipeline.work.folder import WorkFolder
from tests.pipeline.compile.finished_models import made_up_rounds

RUNTIME = "onnxruntime:"
BASE, OPTIMISED, CLEANED = (f"{RUNTIME}fp32{how}" for how in ("", "-optimised", "-cleaned"))
INT8 = f"{RUNTIME}int8-u8s8-minmax"
FEW = (BASE, OPTIMISED, INT8, f"{RUNTIME}int8-u8s8-percentile", f"{RUNTIME}int8-u8s8-mixed10")


def compiled(
    model: Path, tmp_path: Path, data: Path | None = None, reporter: Reporter | None = None, **more: Any
) -> CompiledModel:
    wish = Wish(str(model), more.pop("places", (Place.parse("host/onnxruntime@1"),)), data, **more)
    work = WorkFolder(tmp_path / "work")
    with work.opened():
        return compile_model(wish, work, reporter or SilentReporter())


def only(found: CompiledModel) -> Raced:
    (raced,) = found.raced.values()
    return raced


def timed(monkeypatch: pytest.MonkeyPatch, **times_us: float) -> list[list[str]]:
    """Made-up times by the part of the name behind the runtime, ``_`` for ``-``; who ran in which round."""
    told: list[list[str]] = []
    names = {f"{RUNTIME}{name.replace('_', '-')}": value for name, value in times_us.items()}
    monkeypatch.setattr("pipeline.compile.race.measure_round", made_up_rounds(names, told=told))
    return told
