"""Full and read-only disks wherever commands write: a documented end, and the same command goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from latency_db.store import open_store
from tests.lathe_process import Ended, run_here
from tests.pipeline.run.tiny_recipe import command, run_recipe, write_recipe
from tests.places import ROOT
from tests.small_disks import SmallDisk, small_disk
from tools.attack.samples import fill

pytestmark = pytest.mark.usefixtures("quiet_machine", "exporters_here")

MODEL = str(ROOT / "devices" / "canary" / "canary.onnx")
TARGET = "host/onnxruntime:fp32@1"
PROFILE = ("profile", MODEL, "--target", TARGET, "--launches", "1")
ROOM = "100m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk on which nothing fits."""
    with small_disk(tmp_path / "disk", "4k") as made:
        (made.path / "filler").write_bytes(bytes(4096))
        yield made


@pytest.fixture
def temporary(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> SmallDisk:
    """The same as the folder of temporary files, with as much room as Python wants before it uses one."""
    disk.resize("8k")
    monkeypatch.setenv("TMPDIR", str(disk.path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return disk


@pytest.fixture(scope="module", name="finished")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run has measured and exported all that others of the same recipe need."""
    folder = tmp_path_factory.mktemp("finished")
    run_recipe(write_recipe(folder), folder)
    return folder


def refused(ended: Ended, code: int) -> str:
    """What is said by a command that ended with a documented code and without a traceback."""
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("size", ["12k", "400k", "1800k", "3m"])
def test_a_run_goes_on_after_its_work_folder_was_full(
    finished: Path, tmp_path: Path, disk: SmallDisk, size: str
) -> None:
    """Full at the data, at a checkpoint, at the report, and at the bundle."""
    disk.resize(size)
    recipe = write_recipe(tmp_path)
    asked = command(recipe, finished)
    asked[asked.index("--work") + 1] = str(disk.path / "work")
    assert "no space" in refused(run_here(*asked), 9)
    stages = {path.parent.name for path in disk.path.rglob("result.json")}
    disk.resize(ROOM)
    ended = run_here(*asked)
    assert ended.returncode == 0, ended.stderr
    again = {stage["name"] for stage in json.loads(ended.stdout)["stages"] if stage["cached"]}
    assert {name.rpartition("-")[0] for name in stages} <= again


@pytest.mark.slow
def test_a_run_goes_on_after_the_temporary_folder_was_full(
    finished: Path, tmp_path: Path, temporary: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_CACHE", str(tmp_path / "cache"))
    asked = command(write_recipe(tmp_path), finished)
    asked[asked.index("--work") + 1] = str(tmp_path / "work")
    assert "TMPDIR" in refused(run_here(*asked), 9)
    assert not list(temporary.path.glob("*lathe*"))
    temporary.resize(ROOM)
    assert run_here(*asked).returncode == 0


@pytest.mark.slow
def test_a_run_needs_no_room_for_the_cache_of_exports(
    tmp_path: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_CACHE", str(disk.path))
    run_recipe(write_recipe(tmp_path), tmp_path)


def test_a_profile_needs_no_room_in_the_temporary_folder(temporary: SmallDisk) -> None:
    assert run_here(*PROFILE).returncode == 0
    assert [path.name for path in temporary.path.iterdir()] == ["filler"]


def test_a_profile_says_that_its_result_file_cannot_grow(disk: SmallDisk) -> None:
    asked = (*PROFILE, "--save", str(disk.path / "results.json"))
    assert "No space left on device" in refused(run_here(*asked), 7)
    assert [path.name for path in disk.path.iterdir()] == ["filler"]
    disk.resize(ROOM)
    assert run_here(*asked).returncode == 0


def test_a_profile_says_that_the_lock_of_this_machine_cannot_be_written(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_STATE_DIR", str(disk.path))
    disk.protect()
    assert "LATHE_STATE_DIR" in refused(run_here(*PROFILE), 6)
    disk.unprotect()
    disk.resize(ROOM)
    assert run_here(*PROFILE).returncode == 0


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
@pytest.mark.parametrize("read_only", [False, True], ids=["full", "read-only"])
def test_an_export_to_a_full_or_read_only_disk_leaves_nothing(
    tmp_path: Path, disk: SmallDisk, suffix: str, read_only: bool
) -> None:
    fill(str(tmp_path / "rows.db"), 300)
    asked = ("db", "export", str(disk.path / f"rows{suffix}"), "--db", str(tmp_path / "rows.db"))
    if read_only:
        disk.protect()
    assert "cannot be written" in refused(run_here(*asked), 8)
    assert [path.name for path in disk.path.iterdir()] == ["filler"]
    disk.unprotect()
    disk.resize(ROOM)
    assert run_here(*asked).returncode == 0


def test_a_merge_goes_on_after_the_disk_of_the_database_was_full(tmp_path: Path, disk: SmallDisk) -> None:
    disk.resize("600k")
    fill(str(tmp_path / "rows.db"), 2_000)
    asked = ("db", "merge", str(tmp_path / "rows.db"), "--db", str(disk.path / "all.db"))
    assert "free some disk space" in refused(run_here(*asked), 8)
    disk.resize(ROOM)
    assert run_here(*asked).returncode == 0
    with open_store(str(disk.path / "all.db")) as store:
        assert store.count() == 2_001


def test_output_that_cannot_be_written_is_an_error(disk: SmallDisk) -> None:
    """Not success, as when Python gives up at its end."""
    with (disk.path / "output").open("wb") as output:
        program = "from pipeline.cli.main import main; main()"
        ended = subprocess.run(
            [sys.executable, "-c", program, "recipes", "quickstart"],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert (ended.returncode, "Traceback" in ended.stderr) == (9, False), ended.stderr
    assert "the output cannot be written" in ended.stderr


def test_messages_that_cannot_be_written_end_no_command() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        program = "from pipeline.cli.main import main; main()"
        ended = subprocess.run(
            [sys.executable, "-c", program, "verify", "nowhere", "--json"],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            cwd=ROOT,
            check=False,
        )
    assert ended.returncode == json.loads(ended.stdout)["error"]["exit_code"] == 11
