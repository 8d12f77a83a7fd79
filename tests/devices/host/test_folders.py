"""Temporary folders of dead processes go, those of living ones and of users stay."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from devices.errors import TemporaryFolderError
from devices.host import folders, remove_abandoned, temporary_folder

HOLDER = """
import sys, time
from pathlib import Path
from devices.host import temporary_folder
with temporary_folder("test", Path(sys.argv[1])) as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_temporary_folder_is_private_and_gone_in_the_end(tmp_path: Path) -> None:
    with temporary_folder("test", tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").write_text("x")
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        remove_abandoned(tmp_path)
        assert (folder / "file").exists()
        holder.kill()
    assert folder.exists()
    with temporary_folder("test", tmp_path):
        assert not folder.exists()


def test_folders_and_files_that_are_no_temporary_folders_are_never_removed(tmp_path: Path) -> None:
    for name in ("lathe-work", "lathe-temporary", "my-lathe-temporary-x"):
        (tmp_path / name).mkdir()
    (tmp_path / "lathe-temporary-file-x").touch()
    (tmp_path / "lathe-temporary-link-x").symlink_to(tmp_path / "lathe-work")
    before = sorted(tmp_path.iterdir())
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_in_the_making_is_not_taken_from_its_process(tmp_path: Path) -> None:
    making = tmp_path / ".lathe-temporary-test-x"
    making.mkdir()
    remove_abandoned(tmp_path)
    assert making.exists()


def test_a_place_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    with (
        pytest.raises(TemporaryFolderError, match="no temporary folder can be made") as caught,
        temporary_folder("test", tmp_path / "missing"),
    ):
        pass
    assert "TMPDIR" in caught.value.fix


def test_a_full_disk_is_one_clear_error_and_that_of_another_disk_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill() -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"), temporary_folder("test", tmp_path):
        fill()
    monkeypatch.setattr(folders, "is_full", lambda place: True)
    with pytest.raises(TemporaryFolderError, match="no space left"), temporary_folder("test", tmp_path):
        fill()
