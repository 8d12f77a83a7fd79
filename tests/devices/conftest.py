"""Tiny real models, a runtime that misbehaves on demand, and a state folder of its own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

import devices.measuring.batch
import devices.runtimes
from devices.target import Target
from tests.devices.hostile_runtime import hostile_runtime
from tests.devices.tiny_models import write_tiny_onnx, write_tiny_tflite


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATHE_STATE_DIR", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_onnx(tmp_path_factory.mktemp("models") / "tiny.onnx")


@pytest.fixture(scope="session")
def tiny_tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_tflite(tmp_path_factory.mktemp("models") / "tiny.tflite")


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launch is void, however busy the machine of the tests is."""
    monkeypatch.setattr(devices.measuring.batch, "mark", lambda launches, protocol, *, cores: tuple(launches))


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Target:
    """A target whose runtime does what its artifacts say; see hostile_engine.py."""
    monkeypatch.setattr(devices.runtimes, "RUNTIMES", (*devices.runtimes.RUNTIMES, hostile_runtime()))
    return Target("host", "hostile")
