from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from devices.connections import LocalConnection
from devices.errors import MeasurementError, PassingMeasurementError
from devices.requests import prediction
from devices.requests.prediction import predict, predict_all

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


class Counting(LocalConnection):
    """Notes the rows of each piece, and changes what comes back."""

    def __init__(self, change=lambda values: values):
        super().__init__()
        self.rows, self.change = [], change

    def pull(self, remote, path):
        super().pull(remote, path)
        values = np.load(path)
        self.rows.append(len(values))
        np.save(path, self.change(values))


@pytest.mark.parametrize(
    ("growth", "piece_bytes", "pieces"),
    [(4, 1 << 20, [2, 8, 10]), (1, 1 << 20, [2] * 10), (4, 40, [2, 5, 5, 5, 3]), (4, 1, [1] * 20)],
)
def test_inputs_run_in_pieces_of_so_many_rows_and_bytes(
    hostile, script, monkeypatch, growth, piece_bytes, pieces
):
    monkeypatch.setattr(prediction, "FIRST_ROWS", 2)
    monkeypatch.setattr(prediction, "GROWTH", growth)
    monkeypatch.setattr(prediction, "MOST_PIECE_BYTES", piece_bytes)
    rows = np.arange(40, dtype=np.float32).reshape(20, 2)
    with Counting() as connection:
        (outputs,) = predict_all(script("run"), [rows], hostile, connection=connection)
    np.testing.assert_array_equal(outputs, rows)
    assert connection.rows == pieces


def test_pieces_grow_only_where_there_is_time_for_it(hostile, script, monkeypatch):
    monkeypatch.setattr(prediction, "FIRST_ROWS", 2)
    clock = SimpleNamespace(monotonic=iter(range(0, 10_000, 20)).__next__)
    monkeypatch.setattr(prediction, "time", clock)
    with Counting() as connection:
        predict(script("run"), np.ones((6, 2), np.float32), hostile, timeout_s=160, connection=connection)
    assert connection.rows == [2, 2, 2]


def test_a_piece_that_takes_too_long_tells_the_limit_and_what_can_be_done(hostile, script):
    with pytest.raises(PassingMeasurementError, match="timeout") as caught:
        predict(script("hang"), ROWS, hostile, timeout_s=2)
    assert caught.value.why.startswith("3 of 3 inputs took more than 2 s; ")
    assert "a faster one" in caught.value.fix


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda values: values[:, :1], r"shape \(3, 1\), not \(3, 2\)"),
        (lambda values: values.astype(np.float64), "type float64"),
    ],
)
def test_outputs_other_than_announced_are_refused_before_they_are_loaded(
    hostile, script, monkeypatch, change, why
):
    monkeypatch.setattr(prediction, "array_from", lambda path: pytest.fail("they were loaded"))
    with Counting(change) as connection, pytest.raises(MeasurementError, match="cannot be read") as caught:
        predict(script("run"), ROWS, hostile, connection=connection)
    assert re.search(why, caught.value.why)


def test_more_outputs_than_fit_are_refused_before_they_are_copied(hostile, script, monkeypatch):
    monkeypatch.setattr(prediction, "MOST_OUTPUT_BYTES", 23)
    with pytest.raises(MeasurementError, match="cannot be taken") as caught:
        predict(script("run"), ROWS, hostile)
    assert "24 bytes for 3 inputs" in caught.value.why


def test_predict_refuses_no_inputs(hostile, script):
    with pytest.raises(MeasurementError, match="no inputs"):
        predict(script("run"), ROWS[:0], hostile, timeout_s=30)


def test_predict_refuses_a_missing_artifact(hostile, tmp_path):
    with pytest.raises(MeasurementError, match="absent"):
        predict(tmp_path / "absent.script", ROWS, hostile, timeout_s=30)
