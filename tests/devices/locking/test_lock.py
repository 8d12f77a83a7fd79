from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from devices.connections import LocalConnection
from devices.errors import TargetError
from devices.locking.lock import device_lock, lock_state_of, who_am_i
from devices.locking.queue import SCRIPT, Ticket, lock_state, machine_folder
from tests.devices.local_shell import ShellConnection

HOLDER = """
import sys
from devices.connections import LocalConnection
from devices.locking.lock import device_lock
with device_lock("host", LocalConnection()):
    print("held", flush=True)
    sys.stdin.readline()
"""
WAYS = {"in this process": LocalConnection, "by the script": ShellConnection}


@pytest.fixture
def holder():
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(params=WAYS)
def connection(request):
    with WAYS[request.param]() as opened:
        yield opened


@pytest.fixture
def script():
    """Starts the script as another host would, by a pipe to a shell."""
    with contextlib.ExitStack() as started:

        def start(who: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                ["sh", "-c", SCRIPT, "lathe-lock", "take", who],
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            started.callback(process.communicate)
            started.callback(end, process)
            return process

        yield start


def end(process: subprocess.Popen[str]) -> None:
    """Kill it as connections do: with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_until(true) -> None:
    for _ in range(300):
        if true():
            return
        time.sleep(0.05)
    pytest.fail("it did not come true")


def waiting() -> list[str]:
    return [entry.who for entry in lock_state(machine_folder()).waiting]


def test_device_lock_gives_up_and_names_the_holder_when_another_process_keeps_it(holder, connection, caplog):
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(TargetError, match="in use") as caught,
        device_lock("pi5", connection, wait_s=0.2),
    ):
        pytest.fail("the lock was given twice")
    assert f"process {holder.pid} holds it since 20" in caught.value.why
    assert f"waiting for device 'pi5': {caught.value.why}" in caplog.text
    assert waiting() == []


def test_device_lock_is_free_when_its_holder_was_killed(holder, connection):
    holder.kill()
    holder.wait()
    with device_lock("host", connection, wait_s=10):
        assert lock_state(machine_folder()).holder is not None


def test_device_lock_waits_until_the_holder_lets_go(holder, connection):
    holder.stdin.write("\n")
    holder.stdin.flush()
    with device_lock("host", connection, wait_s=30):
        assert holder.wait(timeout=30) == 0


def test_device_lock_is_one_for_all_names_and_ways_to_a_machine(connection):
    with device_lock("one-name", connection):
        for other in WAYS.values():
            with (
                other() as opened,
                pytest.raises(TargetError, match="in use"),
                device_lock("another-name", opened, wait_s=0),
            ):
                pytest.fail("the lock was given twice")


def test_device_lock_excludes_other_threads_of_the_process():
    inside, most = [], []

    def work():
        with device_lock("host", LocalConnection(), wait_s=30):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_device_lock_respects_a_plain_flock_of_the_user(connection):
    with device_lock("host", connection):
        pass
    with (machine_folder() / "lathe-device.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert lock_state_of(connection).taken
        with (
            pytest.raises(TargetError) as caught,
            device_lock("host", connection, wait_s=0.2),
        ):
            pytest.fail("the lock was given twice")
    assert caught.value.why == "another process holds it"


def test_device_lock_is_given_in_the_order_of_asking_when_some_ask_here_and_some_by_the_script(
    script, caplog
):
    first = Ticket(machine_folder(), "first")
    assert first.take()
    order: list[str] = []
    second = script("second")
    assert second.stdout.readline().startswith("waiting\t1\tfirst\t20")

    def third_asks():
        with device_lock("host", LocalConnection(), wait_s=30):
            order.append("third")

    third = threading.Thread(target=third_asks)
    with caplog.at_level(logging.WARNING):
        third.start()
        wait_until(lambda: "first holds it since 20" in caplog.text)
        assert "1 more wait" in caplog.text
        fourth = script("fourth")
        assert fourth.stdout.readline().startswith("waiting\t3\tfirst\t20")
        assert waiting() == ["second", who_am_i(), "fourth"]
        first.close()
        # A line may come before, while nobody waits but the lock is still being let go.
        assert "held\n" in second.stdout
        assert order == []
        end(second)
        third.join(timeout=30)
    assert order == ["third"]
    assert "held\n" in fourth.stdout


def test_device_lock_goes_to_the_next_when_one_in_the_middle_gives_up(script):
    first, second, third = script("first"), None, None
    assert first.stdout.readline() == "held\n"
    second = script("second")
    assert second.stdout.readline().startswith("waiting\t1")
    third = script("third")
    assert third.stdout.readline().startswith("waiting\t2")
    end(second)
    assert third.stdout.readline().startswith("waiting\t1\tfirst")
    assert [entry.who for entry in lock_state(machine_folder()).entries] == ["first", "third"]
    end(first)
    assert "held\n" in third.stdout


def test_lock_state_is_the_same_by_both_ways_and_harmless_when_names_are_hostile(script):
    hostile = script("\x1b[31mred\ttab; $(touch x) `id`")
    assert hostile.stdout.readline() == "held\n"
    waiter = script("waiter")
    assert waiter.stdout.readline().startswith("waiting")
    with LocalConnection() as local, ShellConnection() as shell:
        here, there = lock_state_of(local), lock_state_of(shell)
    assert here.taken and there.taken
    assert here.holder.who == "[31mred tab; $(touch x) `id`"
    assert [entry.who for entry in here.waiting] == [entry.who for entry in there.waiting] == ["waiter"]
    assert all(text.isprintable() for entry in there.entries for text in (entry.who, entry.since))


@pytest.mark.parametrize("tools", ["toybox", "busybox"])
def test_the_script_runs_under_the_shells_and_tools_of_phones_and_boards(tools, tmp_path, monkeypatch):
    shell = {"toybox": "mksh", "busybox": "busybox"}[tools]
    if shutil.which(shell) is None or shutil.which(tools) is None:
        pytest.skip(f"{shell} and {tools} are not installed (Debian: apt-get install mksh toybox busybox)")
    for name in ("mkdir", "rm", "mv", "date", "sleep", "printf"):
        (tmp_path / name).symlink_to(shutil.which(tools))
    # Debian's busybox is built without it.
    (tmp_path / "flock").symlink_to(shutil.which(tools if "flock" in applets(tools) else "flock"))

    def start(*arguments: str) -> subprocess.Popen[str]:
        program = [shutil.which("mksh")] if shell == "mksh" else [shutil.which("busybox"), "ash"]
        return subprocess.Popen(
            [*program, "-c", SCRIPT, "lathe-lock", *arguments],
            env={"PATH": str(tmp_path), "LATHE_STATE_DIR": str(tmp_path / "state")},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    first = start("take", "first")
    second = None
    try:
        assert first.stdout.readline() == "held\n"
        second = start("take", "second")
        assert second.stdout.readline().startswith("waiting\t1\tfirst\t20")
        listed = start("list").communicate(timeout=30)[0].splitlines()
        assert [line.split("\t")[:2] for line in listed] == [
            ["entry", "first"],
            ["entry", "second"],
            ["held"],
            ["end"],
        ]
        assert [entry.who for entry in lock_state(tmp_path / "state").entries] == ["first", "second"]
        end(first)
        assert "held\n" in second.stdout
    finally:
        for process in filter(None, (first, second)):
            end(process)
            process.communicate()


def applets(tools: str) -> list[str]:
    listing = subprocess.run(
        [tools, *(["--list"] if tools == "busybox" else [])], check=True, capture_output=True, text=True
    )
    return listing.stdout.split()


def test_device_lock_says_so_when_the_command_flock_does_not_lock(tmp_path, caplog):
    for name in ("sh", "mkdir", "mktemp", "find", "setsid", "sleep", "head", "cat", "wc", "rm", "id"):
        (tmp_path / name).symlink_to(Path("/usr/bin") / name)
    (tmp_path / "flock").symlink_to("/usr/bin/false")
    with ShellConnection(path=str(tmp_path)) as connection, caplog.at_level(logging.WARNING):
        assert lock_state_of(connection) is None
        with device_lock("pi5", connection):
            assert "'pi5' has no command flock" in caplog.text


def test_lock_state_is_free_before_anybody_asked(connection):
    state = lock_state_of(connection)
    assert (state.taken, state.entries) == (False, ())


def test_device_lock_leaves_no_ticket_behind_for_long(connection):
    with device_lock("host", connection):
        assert len(list((machine_folder() / "lathe-device.queue").iterdir())) == 1
    with device_lock("host", connection):
        # What a killed script leaves is removed by who comes next.
        assert len(list((machine_folder() / "lathe-device.queue").iterdir())) == 1
    assert not lock_state(machine_folder()).taken


def test_ensure_takes_the_lock_again_when_the_device_went_away_meanwhile():
    with ShellConnection() as connection, device_lock("pi5", connection) as lock:
        lock.ensure()
        connection.cut()
        wait_until(lambda: not lock_state(machine_folder()).taken)

        def taken_again() -> bool:
            # That the device went away is learned a moment after its kernel has freed the lock.
            lock.ensure()
            return lock_state(machine_folder()).taken

        wait_until(taken_again)


def test_device_lock_is_kept_on_this_host_and_says_so_when_the_device_has_no_flock(
    tmp_path, monkeypatch, caplog
):
    for name in ("sh", "mkdir", "mktemp", "find", "setsid", "sleep", "head", "cat", "wc", "rm", "id"):
        (tmp_path / name).symlink_to(Path("/usr/bin") / name)
    with ShellConnection(path=str(tmp_path)) as connection, caplog.at_level(logging.WARNING):
        assert lock_state_of(connection) is None
        with device_lock("pi5", connection):
            with pytest.raises(TargetError), device_lock("pi5", connection, wait_s=0):
                pytest.fail("the lock was given twice")
            with device_lock("another", connection, wait_s=0):
                pass
    assert "'pi5' has no command flock" in caplog.text


def test_device_lock_says_how_to_mend_it_when_the_folder_cannot_be_made(tmp_path, monkeypatch, connection):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LATHE_STATE_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(TargetError) as caught, device_lock("host", connection):
        pytest.fail("there is no folder for a lock")
    assert "LATHE_STATE_DIR" in caught.value.fix
    assert os.fspath(tmp_path) in caught.value.why


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_device_lock_is_shared_with_another_user_when_the_folder_is_like_tmp(tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    for parent in folder.parents:
        if parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)
    monkeypatch.setenv("LATHE_STATE_DIR", str(folder))

    def as_nobody(script: str, *arguments: str) -> list[str]:
        started = subprocess.Popen(
            ["sh", "-c", script, "lathe-lock", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            user=65534,
            group=65534,
            extra_groups=[],
            start_new_session=True,
        )
        line = started.stdout.readline()
        end(started)
        return [line, *started.communicate()[0].splitlines(keepends=True)]

    for make_first in (True, False):
        for leftover in folder.iterdir():
            subprocess.run(["rm", "-rf", "--", leftover], check=True)
        if make_first:
            with device_lock("host", LocalConnection()):
                assert as_nobody(SCRIPT, "take", "nobody")[0].startswith("waiting\t1\t")
        assert as_nobody(SCRIPT, "take", "nobody")[0] == "held\n"
        with device_lock("host", LocalConnection(), wait_s=5):
            assert as_nobody(SCRIPT, "take", "nobody")[0].startswith("waiting\t1\t")


OTHER_VERSION = """
import fcntl, os, sys
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "lathe-device.queue").mkdir(parents=True, exist_ok=True)
lock = os.open(folder / "lathe-device.lock", os.O_CREAT | os.O_RDONLY)
ticket = os.open(folder / "lathe-device.queue" / "000000000001.77.later", os.O_CREAT | os.O_RDWR)
fcntl.flock(ticket, fcntl.LOCK_EX)
fcntl.flock(lock, fcntl.LOCK_EX)
os.write(ticket, sys.argv[2].encode())
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("another Lathe\n2030-01-01T00:00:00Z\n", "another Lathe holds it since 2030-01-01T00:00:00Z"),
        ("a newer one\n2030-01-01T00:00:00Z\nmore\nlines\n", "a newer one holds it since 2030"),
        ("an older one\n", "an older one is next"),
        ("", "another process holds it"),
    ],
)
def test_a_lock_of_another_version_is_kept_to_whatever_its_ticket_says(lines, said, connection):
    command = [sys.executable, "-c", OTHER_VERSION, str(machine_folder()), lines]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TargetError, match="in use") as caught, device_lock("pi5", connection, wait_s=1):
            pytest.fail("the lock was given twice")
        assert said in caught.value.why
    finally:
        other.kill()
        other.communicate()
    with device_lock("pi5", connection, wait_s=30):
        assert [entry.who for entry in lock_state(machine_folder()).entries] == [who_am_i()]
