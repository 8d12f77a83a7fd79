from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import devices.check.checking
import devices.check.pools
from devices.errors import TargetError
from devices.inventory.devices_file import read_file
from devices.runtimes import find_runtime
from pipeline.cli.devices.arguments import devices_app
from tests.devices.shelf import shelf

__all__ = ["shelf"]


@pytest.fixture(autouse=True)
def user_devices(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "user.toml"))
    monkeypatch.setenv("LATHE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices.check.checking, "known_runtimes", lambda: (find_runtime("onnxruntime"),))
    return tmp_path / "user.toml"


def lathe(*arguments: str):
    return CliRunner().invoke(devices_app, arguments)


def error_of(*arguments: str) -> TargetError:
    ended = lathe(*arguments)
    assert isinstance(ended.exception, TargetError)
    assert ended.exception.exit_code == 6
    return ended.exception


def test_help_of_every_command_is_complete_and_loads_no_heavy_package():
    for command in ("list", "check", "add", "describe", "health", "trust", "watch"):
        ended = lathe(command, "--help")
        assert ended.exit_code == 0
        assert "--json" in ended.stdout
    code = "import sys; import pipeline.cli.devices.arguments; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "pydantic", "tomlkit", "asyncssh"} & set(loaded)


def test_list_names_host_and_every_device_with_where_it_is_defined(user_devices, tmp_path):
    assert lathe("add", "pi5", "--ssh", "pi5.local", "--note", "with a fan").exit_code == 0
    assert lathe("add", "phone", "--adb", "XYZ", "--project").exit_code == 0
    lines = lathe("list").stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["host", "this", "machine"],
        ["pi5", "ssh", "pi5.local"],
        ["phone", "adb", "XYZ"],
    ]
    assert str(user_devices) in lines[1] and "with a fan" in lines[1]
    assert str(tmp_path / "devices.toml") in lines[2]
    listed = json.loads(lathe("list", "--json").stdout)["devices"]
    assert [(device["name"], device["connection"]) for device in listed] == [
        ("host", "local"),
        ("pi5", "ssh"),
        ("phone", "adb"),
    ]
    assert listed[2]["has_python"] is False


@pytest.mark.parametrize(
    ("arguments", "table"),
    [
        (
            [
                "--ssh",
                "pi",
                "--user",
                "u",
                "--port",
                "22",
                "--identity-file",
                "k",
                "--folder",
                "/f",
                "--emulated",
            ],
            {
                "connection": "ssh",
                "host": "pi",
                "user": "u",
                "port": 22,
                "identity_file": "k",
                "folder": "/f",
                "emulated": True,
            },
        ),
        (["--ssh", "pi", "--python", "/p"], {"connection": "ssh", "host": "pi", "python": "/p"}),
        (["--ssh", "me@pi"], {"connection": "ssh", "host": "pi", "user": "me"}),
        (["--ssh", "pi", "--jump", "me@b:22"], {"connection": "ssh", "host": "pi", "jump": "me@b:22"}),
        (["--adb", "XYZ"], {"connection": "adb", "serial": "XYZ"}),
        (
            ["--adb", "XYZ", "--server-host", "lab"],
            {"connection": "adb", "serial": "XYZ", "server_host": "lab"},
        ),
        (["--address", "192.168.1.5:5555"], {"connection": "adb", "address": "192.168.1.5:5555"}),
        (["--python", "/opt/tf/bin/python"], {"connection": "local", "python": "/opt/tf/bin/python"}),
    ],
)
def test_add_writes_what_the_options_say_and_suggests_a_check(user_devices, arguments, table):
    ended = lathe("add", "new", *arguments)
    assert ended.exit_code == 0, ended.output
    assert dict(read_file(user_devices)["new"].table) == table
    assert "lathe devices check new" in ended.stderr
    assert str(user_devices) in ended.stdout


def test_add_prints_one_json_document_when_asked(user_devices):
    added = json.loads(lathe("add", "a", "--ssh", "h", "--json").stdout)
    assert added == {
        "name": "a",
        "file": str(user_devices),
        "table": {"connection": "ssh", "host": "h"},
    }


def test_add_replaces_a_device_only_when_asked(user_devices):
    lathe("add", "a", "--ssh", "old")
    assert "--replace" in error_of("add", "a", "--ssh", "new").fix
    assert read_file(user_devices)["a"].table["host"] == "old"
    assert lathe("add", "a", "--ssh", "new", "--replace").exit_code == 0
    assert read_file(user_devices)["a"].table["host"] == "new"


@pytest.mark.parametrize(
    "arguments", [[], ["--ssh", "a", "--adb", "b"], ["--adb", "a", "--address", "b:1"], ["--user", "me"]]
)
def test_add_wants_exactly_one_way_to_reach_a_device(user_devices, arguments):
    ended = lathe("add", "a", *arguments)
    assert ended.exit_code == 2
    assert "--ssh" in ended.stderr
    assert not user_devices.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["host", "--ssh", "h"], "'host' is always"),
        (["a b", "--ssh", "h"], "a name is made of"),
        (["a", "--ssh", "h", "--port", "70000"], "65535"),
        (["a", "--address", "h:x"], "HOST:PORT"),
        (["a", "--ssh", "me@h:2222"], "--port 2222"),
    ],
)
def test_add_refuses_what_cannot_be_and_writes_nothing(user_devices, arguments, said):
    assert said in str(error_of("add", *arguments))
    assert not user_devices.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--adb", "x", "--jump", "me@bastion"],
            "--jump goes with --ssh, and this device is reached as an",
        ),
        (["--python", "p", "--jump", "me@bastion"], "reached as another Python of this machine"),
        (["--adb", "x", "--identity-file", "key"], "--identity-file goes with --ssh"),
        (["--ssh", "h", "--server-host", "x"], "--server-host goes with --adb or --address"),
        (["--python", "p", "--folder", "/x"], "--folder goes with --ssh or --adb or --address"),
    ],
)
def test_add_refuses_options_of_another_connection(user_devices, arguments, said):
    ended = lathe("add", "a", *arguments)
    assert ended.exit_code == 2
    assert said in " ".join(re.sub("[│╭╰─╮╯]", " ", ended.output).split())
    assert not user_devices.exists()


def test_list_tells_each_fault_of_a_device_on_a_line_of_its_own(user_devices):
    user_devices.parent.mkdir(parents=True, exist_ok=True)
    user_devices.write_text('[devices.bad]\nconnection = "ssh"\nport = "x"\nwrong = 1\n')
    lines = lathe("list").stdout.splitlines()
    faults = [line for line in lines if line.lstrip().startswith("problem: ")]
    assert len(faults) >= 2
    assert all(line.count("bad") <= 1 for line in faults)


def test_check_ends_with_zero_and_says_ready_when_a_device_works():
    ended = lathe("check")
    assert ended.exit_code == 0, ended.output
    assert "host (local)" in ended.stdout
    assert "onnxruntime" in ended.stdout
    assert ended.stdout.rstrip().endswith("ready")
    assert "trying onnxruntime" in ended.stderr


def test_check_of_all_goes_on_after_a_failure_and_ends_with_six():
    lathe("add", "broken", "--python", "/nonexistent/python")
    lathe("add", "fine", "--python", sys.executable)
    ended = lathe("check", "--all", "--json")
    assert ended.exit_code == 6
    reports = {report["name"]: report for report in json.loads(ended.stdout)["devices"]}
    assert {name: report["ok"] for name, report in reports.items()} == {
        "host": True,
        "broken": False,
        "fine": True,
    }
    assert "[devices.broken]" in reports["broken"]["problems"][0]["fix"]
    assert reports["fine"]["runtimes"][0]["smoke_ns"] > 0
    text = lathe("check", "broken")
    assert text.exit_code == 6
    assert "problem: " in text.stdout and "Fix: " in text.stdout and "not ready" in text.stdout


def test_check_refuses_unknown_names_and_names_beside_all():
    unknown = lathe("check", "mars")
    assert unknown.exit_code == TargetError.exit_code
    assert "no device 'mars'" in unknown.output
    assert lathe("check", "host", "--all").exit_code == 2


def test_describe_shows_definition_identity_and_lock_as_text_and_json():
    lathe("add", "env", "--python", sys.executable)
    text = lathe("describe", "env")
    assert text.exit_code == 0, text.output
    assert "connection = 'local'" in text.stdout
    assert "lock" in text.stdout and "free" in text.stdout
    described = json.loads(lathe("describe", "env", "--json").stdout)
    assert described["definition"]["table"]["python"] == sys.executable
    assert described["identity"]["cores"] >= 1
    assert described["lock"] == {"taken": False, "entries": []}


def test_a_damaged_file_is_an_error_of_every_command_that_reads_it(user_devices):
    user_devices.write_text("[devices.a\n")
    for arguments in (["list"], ["check", "--all"], ["describe", "a"], ["add", "b", "--ssh", "h"]):
        assert "line 1" in error_of(*arguments).why


def test_trust_makes_the_folders_devices_usable(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert "there is no" in error_of("trust").what
    (tmp_path / "devices.toml").write_text('[devices.board]\nconnection = "ssh"\nhost = "b"\n')
    assert "is new or was changed" in lathe("list").stdout
    assert "is not trusted" in error_of("describe", "board").what
    assert json.loads(lathe("trust", "--json").stdout)["devices"] == {
        "board": {"connection": "ssh", "host": "b"}
    }
    assert "board" in lathe("trust").stdout
    assert "is new or was changed" not in lathe("list").stdout


def test_list_names_pools_with_their_members_and_what_is_wrong_with_them(user_devices):
    for name in "ab":
        assert lathe("add", name, "--ssh", f"{name}.local").exit_code == 0
    with user_devices.open("a") as file:
        file.write('[pool.boards]\nmembers = ["a", "b"]\n[pool.alone]\nmembers = ["c"]\n')
    lines = lathe("list").stdout.splitlines()
    assert lines[3].split() == ["boards", "pool", "a,", "b", str(user_devices)]
    assert lines[4].split()[:2] == ["alone", "pool"]
    assert "problem: it has one member: a pool has at least two" in lines[5]
    boards, alone = json.loads(lathe("list", "--json").stdout)["pools"]
    assert boards == {"name": "boards", "members": ["a", "b"], "file": str(user_devices), "fault": None}
    assert "pool has at least two" in alone["fault"]
    assert error_of("describe", "boards").what == "'boards' is a pool"
    assert "pool 'alone' is not well defined" in error_of("check", "alone").what


def test_check_of_a_pool_checks_its_members_and_whether_they_agree(shelf, monkeypatch):
    levels = {"a": 1e6, "b": 1.01e6, "c": 1.2e6}
    monkeypatch.setattr(devices.check.pools, "canary_ns", lambda target: levels[target.device])
    ended = lathe("check", "all", "--json")
    assert ended.exit_code == 6
    found = json.loads(ended.stdout)
    assert [each["name"] for each in found["devices"]] == ["a", "b", "c"]
    (pool,) = found["pools"]
    assert (pool["ok"], pool["runtime"], pool["canaries_ns"]) == (False, "onnxruntime", levels)
    assert pool["left_out"] == {"c": "its canary runs 18.8% slower than the others', more than 5%"}
    levels["c"] = 1e6
    ended = lathe("check", "all")
    assert ended.exit_code == 0
    assert "all (pool of a, b, c)" in ended.stdout
    assert "canary       1.000 ms on a, 1.010 ms on b, 1.000 ms on c with onnxruntime" in ended.stdout
