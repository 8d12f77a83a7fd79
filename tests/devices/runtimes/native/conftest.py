"""The makers' tools as stand-ins that print their real output; see native_standins/."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from devices.connections import LocalConnection
from devices.measurement.measurement import Placed, Placement
from devices.runtimes.base import Call, Measure
from devices.runtimes.native.benchmark_model import BENCHMARK_MODEL
from devices.runtimes.native.perf_test import PERF_TEST
from devices.runtimes.native.shell import read_platform
from devices.runtimes.native.tools import native_folder
from tests.devices.runtimes.native.native_targets import PROTOCOL, STANDINS


@pytest.fixture(autouse=True)
def tools(tmp_path_factory, monkeypatch) -> Path:
    """The stand-ins, installed as tools for this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    folder = native_folder() / read_platform(LocalConnection())
    shutil.copytree(STANDINS, folder)
    return folder


@pytest.fixture
def without_canary(monkeypatch):
    for runtime in (BENCHMARK_MODEL, PERF_TEST):
        monkeypatch.setattr(type(runtime), "_time_canary", lambda self, session, tool, protocol: None)


@pytest.fixture
def ask(tmp_path):
    """Ask a runtime to measure models that make the stand-in behave in some way."""
    connections = []

    def ask(runtime, target, *behaviours, request=None, timeout_s=30.0, **options):
        connections.append(LocalConnection())
        models = []
        for number, behaviour in enumerate(behaviours):
            models.append(tmp_path / f"{number}{runtime.suffixes[0]}")
            models[-1].write_text(f"{behaviour}\n")
        call = Call(connections[-1], target, timeout_s=timeout_s, **options)
        make = request or (lambda *models: Measure(models, runtime.adapt(PROTOCOL)))
        return runtime.exchange(call, make(*models))

    yield ask
    for connection in connections:
        connection.close()


@pytest.fixture
def place(ask, without_canary):
    def place(runtime, target, behaviour):
        result = ask(runtime, target, behaviour).only("result")["placement"]
        return Placement(result["delegate"], tuple(Placed(**part) for part in result["parts"]))

    return place
