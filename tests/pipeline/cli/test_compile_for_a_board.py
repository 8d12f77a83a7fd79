"""``lathe compile`` for a board that is reached by SSH: all of it for real, on an emulated processor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from devices.measuring.batch import probe
from pipeline.bundle import read_bundle
from pipeline.compile import find_variant
from tests.contracts.runtime import QUICK
from tests.devices.arm64 import served
from tests.pipeline.cli.conftest import Lathe
from tests.pipeline.compile.finished_models import save_classifier

pytestmark = pytest.mark.slow

BASE, INT8 = "onnxruntime:fp32", "onnxruntime:int8-s8s8-minmax"


@pytest.fixture
def _board(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A board called 'board', two variants, and one short launch of each."""
    known = tuple(find_variant(name) for name in (BASE, INT8))
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: known)
    monkeypatch.setattr("pipeline.compile.compiling.MeasuringProtocol", lambda: QUICK)
    for name in ("compiling.LAUNCHES", "race.LAUNCHES", "race.MAX_ROUNDS"):
        monkeypatch.setattr(f"pipeline.compile.{name}", 1)
    with served(tree, tmp_path / "keys") as board:
        board.write_devices(tmp_path / "devices.toml")
        monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))
        probe.cache_clear()
        yield
    probe.cache_clear()


@pytest.mark.usefixtures("_board")
def test_one_command_compiles_a_model_for_a_board(lathe: Lathe, tmp_path: Path) -> None:
    save_classifier(tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((16, 3, 8, 8), dtype=np.float32))
    code, output, errors = lathe(
        *("compile", "net.onnx", "--target", "board/onnxruntime@1", "--data", "x.npy"),
        *("--max-drop", "100", "--out", "bundle", "--json"),
    )
    assert code == 0, errors
    (target,) = json.loads(output)["targets"]
    rows = {row["name"]: row for row in target["variants"]}
    assert set(rows) == {BASE, INT8}
    for row in rows.values():
        assert row["measurement"]["device"]["machine"] == "aarch64"
        assert row["peak_memory_bytes"] > 0
    # What the board computes, beside the model on this machine: in float the same to the last digits.
    assert rows[BASE]["quality"]["max_rel"] < 1e-5 < rows[INT8]["quality"]["max_rel"] < 0.2
    assert any("emulated" in warning for warning in target["warnings"])
    (entry,) = read_bundle(tmp_path / "bundle").targets
    assert entry.target.startswith("board/onnxruntime:")
    assert entry.artifact_runs_on == "any processor with the runtime"
