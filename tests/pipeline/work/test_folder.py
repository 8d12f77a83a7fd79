from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import WorkFolderError
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class Value:
    number: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Input:
    x: int


calls: list[int] = []


@stage("demo")
def demo(given: Input, folder: StageFolder, services: None) -> Value:
    calls.append(given.x)
    (folder / "weights.bin").write_bytes(b"good")
    return Value(float("inf") if given.x == 1 else given.x, ("a", "b"))


@stage("patient")
def patient(given: Input, folder: StageFolder, services: None) -> Value:
    journal = folder / "journal"
    done = len(journal.read_text()) if journal.exists() else 0
    if done < given.x:
        journal.write_text("x" * (done + 1))
        raise RuntimeError("killed")
    return Value(done)


@pytest.fixture(autouse=True, name="_clear")
def clear() -> None:
    calls.clear()


def test_stage_computes_once_and_reads_back_an_equal_value(tmp_path: Path) -> None:
    with WorkFolder(tmp_path).opened() as work:
        first = work.run(demo, Input(1), None)
    with WorkFolder(tmp_path).opened() as work:
        second = work.run(demo, Input(1), None)
        assert [record.cached for record in work.records] == [True]
        assert work.finished(demo, Input(1)) == first
        assert work.finished(demo, Input(2)) is None
    assert first == second == Value(float("inf"), ("a", "b"))
    assert calls == [1]


def test_a_stage_that_is_forgotten_runs_again_and_no_other(tmp_path: Path) -> None:
    with WorkFolder(tmp_path).opened() as work:
        work.run(demo, Input(1), None)
        work.run(demo, Input(2), None)
        work.forget(demo, Input(1))
        work.forget(demo, Input(3))
        assert work.finished(demo, Input(1)) is None
        work.run(demo, Input(1), None)
        work.run(demo, Input(2), None)
    assert calls == [1, 2, 1]


def test_stage_computes_again_when_an_input_differs(tmp_path: Path) -> None:
    with WorkFolder(tmp_path).opened() as work:
        values = [work.run(demo, Input(x), None).number for x in (2, 3, 2)]
    assert values == [2, 3, 2]
    assert [record.cached for record in work.records] == [False, False]  # what was asked again is told once


@pytest.mark.parametrize("damage", ["change", "remove", "result"])
def test_stage_computes_again_when_one_of_its_files_was_damaged(tmp_path: Path, damage: str) -> None:
    with WorkFolder(tmp_path).opened() as work:
        work.run(demo, Input(1), None)
        (folder,) = work.stages.iterdir()
        if damage == "change":
            (folder / "weights.bin").write_bytes(b"evil")
        elif damage == "remove":
            (folder / "weights.bin").unlink()
        else:
            (folder / "result.json").write_text("{")
        work.run(demo, Input(1), None)
    assert len(calls) == 2
    assert (folder / "weights.bin").read_bytes() == b"good"


def test_stage_that_raised_finds_what_it_left_when_it_is_called_again(tmp_path: Path) -> None:
    with WorkFolder(tmp_path).opened() as work:
        for _ in range(2):
            with pytest.raises(RuntimeError):
                work.run(patient, Input(2), None)
        assert work.run(patient, Input(2), None).number == 2


def test_opened_refuses_when_another_process_holds_the_folder(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from pipeline.work.folder import WorkFolder
        with WorkFolder(Path(sys.argv[1])).opened():
            print("held", flush=True)
            sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        refusal = pytest.raises(WorkFolderError, match=rf"in use by process {other.pid}")
        with refusal as caught, WorkFolder(tmp_path).opened():
            pass
        assert "--work" in caught.value.fix
        other.kill()
        other.wait()
        with WorkFolder(tmp_path).opened():
            pass


@pytest.mark.parametrize("place", ["file", "/proc"])
def test_opened_says_what_to_do_when_the_folder_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    folder = Path("/proc/lathe") if place == "/proc" else tmp_path / "file" / "work"
    with pytest.raises(WorkFolderError, match="cannot be made") as caught, WorkFolder(folder).opened():
        pass
    assert "--work" in caught.value.fix


def test_opened_says_so_when_the_disk_is_full(tmp_path: Path) -> None:
    with pytest.raises(WorkFolderError, match="no space to write") as caught, WorkFolder(tmp_path).opened():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "x"))
    assert "free some space" in caught.value.fix
