from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devices.connections import LocalConnection
from devices.errors import MeasurementError
from devices.requests.prediction import predict

ROWS = np.ones((3, 2), np.float32)


@pytest.fixture
def script(tmp_path):
    def write(text):
        path = tmp_path / "a.script"
        path.write_text(text)
        return path

    return write


def test_predict_gives_a_row_per_input_and_leaves_no_file(hostile, script, tmp_path):
    with LocalConnection() as connection:
        outputs = predict(script("run"), ROWS, hostile, timeout_s=30, connection=connection)
        folder = Path(connection.scratch())
        assert folder.is_dir()
    np.testing.assert_array_equal(outputs, ROWS)
    assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.script"]


@pytest.mark.parametrize(
    ("text", "code"),
    [("refuse", "load-failed"), ("raise", "run-failed"), ("die", "crashed-signal-11"), ("hang", "timeout")],
)
def test_predict_names_the_cause_when_the_artifact_cannot_be_run(hostile, script, text, code):
    with pytest.raises(MeasurementError, match=code):
        predict(script(text), ROWS, hostile, timeout_s=2 if text == "hang" else 60)


def test_predict_refuses_no_inputs(hostile, script):
    with pytest.raises(MeasurementError, match="no inputs"):
        predict(script("run"), ROWS[:0], hostile, timeout_s=30)


def test_predict_refuses_a_missing_artifact(hostile, tmp_path):
    with pytest.raises(MeasurementError, match="absent"):
        predict(tmp_path / "absent.script", ROWS, hostile, timeout_s=30)
