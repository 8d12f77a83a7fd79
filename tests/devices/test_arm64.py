"""The whole path to an arm64 userland, emulated: connection, agent, runtimes, and what can go wrong there."""

from __future__ import annotations

import _json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from devices.connections.ssh import SshConnection
from devices.errors import TargetError
from devices.inventory.devices import find_device
from devices.measurement.measurement import Measurement, MeasurementFailure
from devices.measuring.batch import Job, measure, probe
from devices.requests.prediction import predict
from devices.target import Target
from tests.contracts.connection import ConnectionContract
from tests.contracts.runtime import QUICK
from tests.devices.arm64 import BINFMT, TOOL, is_free, require_emulation, served, wait_for
from tests.devices.ports import free_port
from tests.devices.tiny_models import INPUTS, tiny_reference

pytestmark = pytest.mark.slow

RUNTIMES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}
X86_64, AARCH64 = 62, 183


@pytest.fixture(scope="module")
def served_board(tree, tmp_path_factory):
    with served(tree, tmp_path_factory.mktemp("board") / "keys") as board:
        yield board


@pytest.fixture(scope="module")
def board(served_board, tmp_path_factory):
    """The board as 'board' of a devices.toml, which does not say that it is emulated."""
    file = tmp_path_factory.mktemp("devices") / "devices.toml"
    served_board.write_devices(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATHE_DEVICES", str(file))
        probe.cache_clear()
        yield served_board
    probe.cache_clear()


@pytest.fixture
def board_with(served_board, tmp_path, monkeypatch):
    """Makes 'board' one with an interpreter that is given."""

    def make(python: str) -> None:
        served_board.write_devices(tmp_path / "devices.toml", python=python)
        monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))
        probe.cache_clear()

    yield make
    probe.cache_clear()


@pytest.fixture
def connection(served_board):
    with SshConnection("127.0.0.1", **served_board.options) as connection:
        yield connection


@pytest.fixture
def models(tiny_onnx, tiny_tflite):
    return {"onnxruntime": tiny_onnx, "litert": tiny_tflite}


def lines_of(connection, *argv: str) -> list[str]:
    lines: list[str] = []
    ended = connection.run(argv, timeout_s=60, on_line=lines.append)
    assert ended.returncode == 0, ended.stderr_tail
    return lines


def elf_machine(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[18:20], "little")


def run_tool(*arguments, prefix=()):
    argv = [*prefix, sys.executable, TOOL, *arguments]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)


# What the board is


class TestSshConnectionToArm64(ConnectionContract):
    @pytest.fixture
    def connection(self, served_board):
        with SshConnection("127.0.0.1", **served_board.options) as connection:
            yield connection


def test_board_runs_arm64_programs_as_a_user_without_rights(connection):
    assert lines_of(connection, "uname", "-m") == ["aarch64"]
    assert lines_of(connection, "id", "-un") == ["lathe"]
    assert lines_of(connection, "cat", "/etc/hostname") == ["lathe-board"]


def test_board_keeps_system_folders_read_only_and_has_devices_and_processors(connection):
    ended = connection.run(("touch", "/usr/bin/new", "/etc/new", "/new"), timeout_s=60)
    assert ended.returncode != 0
    assert ended.stderr_tail.count("Read-only file system") == 3
    assert lines_of(connection, "ls", "/dev") == ["full", "null", "random", "urandom", "zero"]
    assert any("CPU implementer" in line for line in lines_of(connection, "cat", "/proc/cpuinfo"))


def test_board_shows_none_of_the_hosts_processes(connection):
    names = set(lines_of(connection, "sh", "-c", "cat /proc/[0-9]*/comm"))
    assert "sshd" in names
    assert not any("pytest" in name for name in names)


def test_sftp_reaches_the_same_files_as_commands(served_board, connection, tmp_path):
    source = tmp_path / "source"
    source.write_text("by sftp")
    argv = [
        *("sftp", "-b", "-", "-P", str(served_board.port), "-i", served_board.identity_file),
        *("-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={served_board.known_hosts}"),
        "lathe@127.0.0.1",
    ]
    subprocess.run(argv, input=f"put {source} /tmp/by-sftp\n", text=True, check=True, capture_output=True)
    assert lines_of(connection, "cat", "/tmp/by-sftp") == ["by sftp"]


# Lathe on the board


@pytest.mark.parametrize("name", RUNTIMES)
def test_probe_tells_versions_and_that_the_board_is_emulated(board, name):
    identity, device = probe(Target("board", name))
    assert identity.version == version(RUNTIMES[name])
    assert (device.machine, device.emulated) == ("aarch64", True)
    assert "Debian" in device.os
    assert not find_device("board").emulated  # so it was found out there
    host, this = probe(Target("host", name))
    assert host.version == identity.version
    assert host.binary_digest != identity.binary_digest
    assert not this.emulated
    assert this.instance != device.instance


@pytest.mark.parametrize("name", RUNTIMES)
def test_measure_gives_samples_of_a_sound_model_and_the_reason_for_a_damaged_one(
    board, name, models, tmp_path
):
    damaged = tmp_path / f"damaged{models[name].suffix}"
    damaged.write_bytes(models[name].read_bytes()[:100])
    jobs = [Job("damaged", damaged), Job("sound", models[name])]
    outcomes = measure(jobs, Target("board", name), replace(QUICK, launches=1))
    measured = outcomes["sound"]
    assert isinstance(measured, Measurement)
    assert measured.device.emulated
    (launch,) = measured.launches
    assert launch.process_start_ns > 0 and launch.load_ns > 0
    assert len(launch.samples_ns) >= QUICK.min_count
    assert isinstance(outcomes["damaged"], MeasurementFailure)
    assert outcomes["damaged"].reason.code.startswith(("load-failed", "crashed-"))


@pytest.mark.parametrize("name", RUNTIMES)
def test_predict_gives_what_the_model_computes(board, name, models):
    inputs = np.random.default_rng(1).standard_normal((5, INPUTS), dtype=np.float32)
    outputs = predict(models[name], inputs, Target("board", name), timeout_s=120)
    np.testing.assert_allclose(outputs, tiny_reference(inputs), atol=1e-5)


def test_measure_names_the_signal_and_goes_on_when_a_model_kills_the_runtime(board, hostile, tmp_path):
    for word in ("die", "run"):
        (tmp_path / f"{word}.script").write_text(word)
    jobs = [Job(word, tmp_path / f"{word}.script") for word in ("die", "run")]
    outcomes = measure(jobs, replace(hostile, device="board"), replace(QUICK, launches=1))
    assert outcomes["die"].reason.code == f"crashed-signal-{signal.SIGSEGV}"
    assert "about to die" in outcomes["die"].reason.detail
    assert isinstance(outcomes["run"], Measurement)


# What can be wrong there


def test_probe_says_why_when_the_interpreter_is_of_another_architecture(board_with, connection):
    interpreter = connection.push(Path(sys.executable).resolve())
    assert elf_machine(Path(sys.executable).resolve()) == X86_64
    board_with(python=interpreter)
    with pytest.raises(TargetError) as caught:
        probe(Target("board", "onnxruntime"))
    assert interpreter in caught.value.what
    assert caught.value.why and caught.value.fix


def test_probe_says_why_when_the_runtime_is_of_another_architecture(board_with, connection, tmp_path):
    library = Path(_json.__file__)
    assert elf_machine(library) == X86_64
    pushed = connection.push(library)
    package = f"{connection.scratch()}/onnxruntime"
    lines_of(connection, "mkdir", package)
    lines_of(connection, "cp", pushed, f"{package}/native.so")
    init = tmp_path / "init.py"
    init.write_text("from . import native\n")
    lines_of(connection, "cp", connection.push(init), f"{package}/__init__.py")
    launcher = tmp_path / "launcher"
    launcher.write_text(f'#!/bin/sh\nPYTHONPATH={connection.scratch()} exec python3 "$@"\n')
    board_with(python=connection.push(launcher))
    with pytest.raises(TargetError) as caught:
        probe(Target("board", "onnxruntime"))
    assert "onnxruntime" in caught.value.what
    assert "native.so" in caught.value.why


def test_push_says_so_when_the_disk_is_full_and_works_again_when_there_is_room(tree, tmp_path):
    large, small = tmp_path / "large.bin", tmp_path / "small.bin"
    large.write_bytes(bytes(3 << 20))
    small.write_bytes(b"x" * 1000)
    with (
        served(tree, tmp_path / "keys", "--space-mib=1") as board,
        SshConnection("127.0.0.1", **board.options) as connection,
    ):
        with pytest.raises(TargetError, match=r"(?i)space"):
            connection.push(large)
        assert lines_of(connection, "cat", connection.push(small)) == ["x" * 1000]


def test_push_says_so_when_no_folder_can_be_written(served_board, tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        SshConnection("127.0.0.1", folder="/usr/lathe", **served_board.options) as connection,
        pytest.raises(TargetError) as caught,
    ):
        connection.push(tmp_path / "file")
    assert "folder" in caught.value.what
    assert caught.value.fix


# The tool


def test_build_leaves_a_tree_of_arm64_programs_and_nothing_of_one_that_was_killed(tree):
    for program in ("usr/bin/python3", "usr/bin/dash", "usr/bin/setsid"):
        assert elf_machine((tree / program).resolve()) == AARCH64
    assert not (tree.parent / f".{tree.name}.unfinished").exists()


def test_build_keeps_a_tree_that_is_finished_and_makes_one_of_other_inputs_anew(tree, tmp_path):
    identity = (tree / "etc/machine-id").read_text()
    assert run_tool("build", tree).returncode == 0
    assert (tree / "etc/machine-id").read_text() == identity

    other = tmp_path / "board"
    (other / "etc").mkdir(parents=True)
    (other / "etc/lathe-board").write_text("made from something else")
    failed = run_tool("build", other, "--mirror=file:///nonexistent")
    assert failed.returncode == 1  # so it was begun; the old one lasts until there is a new one
    assert "debootstrap" in failed.stderr and "Why:" in failed.stderr and "Fix:" in failed.stderr
    assert (other / "etc/lathe-board").exists()


def test_build_refuses_a_folder_that_holds_something_else(tree, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    refused = run_tool("build", tmp_path)
    assert refused.returncode == 1
    assert f"{tmp_path} is not a board" in refused.stderr
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_serve_prints_what_devices_toml_and_known_hosts_need(served_board):
    assert '[devices.board]\nconnection = "ssh"\n' in served_board.output
    assert f"port = {served_board.port}\n" in served_board.output
    assert "emulated = true\n" in served_board.output
    assert f"[127.0.0.1]:{served_board.port} ssh-ed25519 " in served_board.output


def test_serve_leaves_no_process_and_no_mount_when_it_is_killed(tree, tmp_path):
    mounts = Path("/proc/mounts").read_text()
    with served(tree, tmp_path / "keys") as board:
        assert Path("/proc/mounts").read_text() == mounts
        argv = [
            *("ssh", "-p", str(board.port), "-i", board.identity_file, "-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={board.known_hosts}", "lathe@127.0.0.1"),
            "echo ready; exec sleep 600",
        ]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as session:
            assert session.stdout.readline() == b"ready\n"
            board.server.kill()
            assert session.wait(timeout=30) == 255
        wait_for(lambda: is_free(board.port))
    assert Path("/proc/mounts").read_text() == mounts
    assert [path for folder in ("proc", "sys", "tmp") for path in (tree / folder).iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--authorized-keys=absent",), "there is no file"),
        (("--authorized-keys=/etc/hostname", "--port=70000"), "port 70000 cannot be used"),
        (("--authorized-keys=/etc/hostname", "--space-mib=0"), "0 MiB"),
    ],
)
def test_serve_refuses_what_cannot_work(tree, arguments, message):
    refused = run_tool("serve", tree, *arguments)
    assert refused.returncode == 1
    assert message in refused.stderr and "Fix:" in refused.stderr


def test_serve_refuses_a_port_that_is_taken_and_a_folder_that_is_no_board(tree, served_board, tmp_path):
    taken = run_tool(
        "serve", tree, f"--port={served_board.port}", f"--authorized-keys={served_board.identity_file}.pub"
    )
    assert f"port {served_board.port} cannot be used" in taken.stderr
    empty = run_tool("serve", tmp_path, f"--port={free_port()}", "--authorized-keys=/etc/hostname")
    assert "there is no board" in empty.stderr
    assert "arm64_device build" in empty.stderr
    assert (taken.returncode, empty.returncode) == (1, 1)


IN_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private", "sh", "-c")


@pytest.mark.parametrize(
    ("prefix", "message", "fix"),
    [
        (("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"), "this needs root", "sudo"),
        (("setarch", "i686"), "is not emulated on Linux i686", "such a machine"),
        (
            (*IN_OWN_MOUNTS, 'mount --bind /dev/null "$(command -v debootstrap)" && exec "$@"', "sh"),
            "not installed: debootstrap",
            "apt-get install debootstrap",
        ),
        (
            (*IN_OWN_MOUNTS, 'mount --bind /dev/null "$0" && exec "$@"', BINFMT / "qemu-aarch64"),
            "does not start arm64 programs",
            "apt-get install qemu-user-static",
        ),
    ],
)
def test_build_says_what_is_missing_on_the_host(tree, tmp_path, prefix, message, fix):
    refused = run_tool("build", tmp_path / "board", prefix=prefix)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert fix in refused.stderr.split("Fix:")[1]
    assert not (tmp_path / "board").exists()


def test_build_mounts_the_kernels_list_of_emulators_when_it_is_not_mounted(tree):
    require_emulation()
    unmounted = (*IN_OWN_MOUNTS, 'umount "$0" && exec "$@"', BINFMT)
    assert run_tool("build", tree, prefix=unmounted).returncode == 0
    assert shutil.which("update-binfmts")
