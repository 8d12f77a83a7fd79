from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from devices.errors import TargetError
from devices.lock import device_lock

HOLDER = """
import sys
from devices.lock import device_lock
with device_lock("host"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder():
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_device_lock_gives_up_and_names_the_holder_when_another_process_keeps_it(holder, caplog):
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(TargetError, match="in use") as caught,
        device_lock("host", wait_s=0.2),
    ):
        pytest.fail("the lock was given twice")
    assert f"process {holder.pid} holds it since 20" in caught.value.why
    assert f"process {holder.pid}" in caplog.text


def test_device_lock_is_free_when_its_holder_was_killed(holder):
    holder.kill()
    holder.wait()
    with device_lock("host", wait_s=10):
        pass


def test_device_lock_waits_until_the_holder_lets_go(holder):
    holder.stdin.write("\n")
    holder.stdin.flush()
    with device_lock("host", wait_s=30):
        assert holder.wait(timeout=30) == 0


def test_device_lock_of_one_device_leaves_another_free(holder):
    with device_lock("another", wait_s=0):
        pass


def test_device_lock_says_how_to_mend_it_when_the_state_folder_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LATHE_STATE_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(TargetError) as caught, device_lock("host"):
        pass
    assert "LATHE_STATE_DIR" in caught.value.fix
    assert os.fspath(tmp_path) in caught.value.why
