"""tflite-runtime in an environment of its own, since it needs numpy below 2."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from devices.connections import LocalConnection
from devices.measurement.measurement import Measurement, MeasurementFailure, Placed
from devices.measuring.batch import Job, measure
from devices.measuring.probing import identify
from devices.runtimes.python_runtimes import TFLITE_RUNTIME
from devices.target import Target
from tests.contracts.runtime import QUICK, AgentRuntimeContract
from tests.devices.tiny_models import (
    INPUTS,
    tiny_reference,
    write_mixed_tflite,
    write_unsupported_tflite,
    write_wrong_type_tflite,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info >= (3, 12), reason="tflite-runtime has no wheel for this Python"),
]

REQUIREMENTS = ("tflite-runtime==2.14.0", "numpy==1.26.4")


@pytest.fixture(scope="session")
def old_python(tmp_path_factory) -> Path:
    """The Python of an environment with tflite-runtime and numpy 1."""
    folder = tmp_path_factory.mktemp("tflite") / "environment"
    venv.create(folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", *REQUIREMENTS], check=True, timeout=600)
    return python


@pytest.fixture
def connection(old_python):
    with LocalConnection(python=(str(old_python),)) as opened:
        yield opened


class TestTfliteRuntime(AgentRuntimeContract):
    input_shape = (INPUTS,)
    packages = frozenset({"tflite_runtime"})
    operations = 1
    profiled = False

    @pytest.fixture
    def connection(self, old_python):
        with LocalConnection(python=(str(old_python),)) as opened:
            yield opened

    @pytest.fixture
    def runtime(self):
        return TFLITE_RUNTIME

    @pytest.fixture
    def artifact(self, tiny_tflite):
        return tiny_tflite

    @pytest.fixture
    def unsupported(self, tmp_path):
        return write_unsupported_tflite(tmp_path / "unsupported.tflite")

    @pytest.fixture
    def reference(self):
        return tiny_reference


TARGET = Target("host", "tflite-runtime")


def test_identify_tells_the_version_in_the_environment_of_the_connection(connection):
    assert identify(TARGET, connection)[0].version == "2.14.0"


def test_tflite_runtime_tells_what_xnnpack_left_when_it_does_not_take_an_operation(tmp_path, connection):
    model = write_mixed_tflite(tmp_path / "mixed.tflite")
    outcome = measure([Job("mixed", model)], TARGET, QUICK, connection=connection)["mixed"]
    assert isinstance(outcome, Measurement)
    assert outcome.placement.parts == (Placed("xnnpack", 2, 2), Placed("cpu", 1, 1))


def test_tflite_runtime_names_the_operation_when_it_lacks_a_type(tmp_path, connection):
    model = write_wrong_type_tflite(tmp_path / "bool.tflite")
    outcome = measure([Job("bool", model)], TARGET, QUICK, connection=connection)["bool"]
    assert isinstance(outcome, MeasurementFailure)
    assert "CUMSUM" in outcome.reason.detail
