"""A small classifier with its data, and few variants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pipeline.compile import find_variant
from tests.pipeline.compile.compiling import FEW
from tests.pipeline.compile.finished_models import save_classifier


@pytest.fixture
def few_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a second to make."""
    known = tuple(find_variant(name) for name in FEW)
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: known)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_classifier(tmp_path / "net.onnx")


@pytest.fixture
def data(tmp_path: Path, model: Path) -> Path:
    """Inputs with the labels that the model itself gives."""
    values = np.random.default_rng(1).standard_normal((200, 3, 8, 8), dtype=np.float32)
    session = onnxruntime.InferenceSession(model)
    labels = np.array([session.run(None, {"image": row[None]})[0].argmax() for row in values])
    path = tmp_path / "data.npz"
    np.savez(path, x=values, y=labels)
    return path
