"""The exporter's process: kept between steps, replaced when it ends, and ended with who started it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from torch import nn

from devices.measurement import PASSING_CODES, MeasurementFailure, Reason
from pipeline.errors import ExportError, PassingExportError
from pipeline.export import process, worker
from pipeline.export.base import Format
from pipeline.export.blocks import export_modules
from pipeline.export.process import Worker

STAND_IN = """
import os, signal, sys
from pathlib import Path
for line in sys.stdin:
    step, folder = line.split()
    for name in ("SIGKILL", "SIGTERM"):
        if (Path(folder) / name).exists():
            os.kill(os.getpid(), signal.Signals[name])
    if (Path(folder) / "allocate").exists():
        print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGABRT)
    if (Path(folder) / "no-memory").exists():
        (Path(folder) / "error").write_text("MemoryError: no")
        print("no-memory", flush=True)
        continue
    if (Path(folder) / "die").exists():
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGABRT)
    if (Path(folder) / "fail").exists():
        (Path(folder) / "error").write_text("ValueError: no")
        print("failed", flush=True)
    elif (Path(folder) / "hang").exists():
        signal.pause()
    else:
        (Path(folder) / "pid").write_text(str(os.getpid()))
        print("done", flush=True)
"""


KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(name="exporter")
def _exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    script = tmp_path / "worker.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(worker, "__file__", str(script))
    return Worker("onnxruntime")


def step_folder(tmp_path: Path, *marks: str) -> Path:
    folder = tmp_path / "step"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for mark in marks:
        (folder / mark).touch()
    return folder


def pid_of(exporter: Worker, tmp_path: Path) -> int:
    folder = step_folder(tmp_path)
    exporter.do("convert", folder)
    return int((folder / "pid").read_text())


def test_steps_share_a_process_which_is_gone_in_the_end(exporter: Worker, tmp_path: Path) -> None:
    with exporter:
        first, second = pid_of(exporter, tmp_path), pid_of(exporter, tmp_path)
    assert first == second
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_step_that_fails_says_why_and_the_process_goes_on(exporter: Worker, tmp_path: Path) -> None:
    with exporter:
        first = pid_of(exporter, tmp_path)
        with pytest.raises(ExportError, match="the export for onnxruntime failed") as caught:
            exporter.do("convert", step_folder(tmp_path, "fail"))
        assert caught.value.why == "ValueError: no"
        assert pid_of(exporter, tmp_path) == first


def test_a_process_that_dies_is_told_of_and_replaced(exporter: Worker, tmp_path: Path) -> None:
    with exporter:
        first = pid_of(exporter, tmp_path)
        with pytest.raises(ExportError) as caught:
            exporter.do("quantise", step_folder(tmp_path, "die"))
        assert not isinstance(caught.value, PassingExportError)
        assert caught.value.what == "the quantisation for onnxruntime failed"
        assert caught.value.why == f"the exporter was ended by {signal.SIGABRT.name}: last words"
        assert pid_of(exporter, tmp_path) != first


@pytest.mark.parametrize(
    ("mark", "code"),
    [
        ("SIGKILL", "crashed-signal-9"),
        ("SIGTERM", "crashed-signal-15"),
        ("allocate", "out-of-memory"),
        ("no-memory", "out-of-memory"),
    ],
)
def test_what_memory_or_others_ended_may_succeed_another_time(
    exporter: Worker, tmp_path: Path, mark: str, code: str
) -> None:
    with exporter:
        with pytest.raises(PassingExportError) as caught:
            exporter.do("convert", step_folder(tmp_path, mark))
        assert pid_of(exporter, tmp_path)
    assert caught.value.code == code
    assert code in PASSING_CODES


def test_a_step_that_never_ends_is_ended(
    exporter: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TIMEOUT_S", 0.2)
    with exporter, pytest.raises(PassingExportError, match="did not end") as caught:
        exporter.do("convert", step_folder(tmp_path, "hang"))
    assert caught.value.code == "timeout"


def test_a_module_whose_exporter_is_killed_has_a_failure_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(KILLED)
    monkeypatch.setattr(worker, "__file__", str(script))
    found = export_modules({"a": (nn.Identity(), (1, 2, 2))}, Format.ONNX, tmp_path / "files")["a"]
    assert isinstance(found, Reason)
    assert found.code == "crashed-signal-9"
    assert MeasurementFailure("", "target", found).passing
