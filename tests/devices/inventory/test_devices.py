from __future__ import annotations

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import devices.added
import devices.inventory.devices_file
from devices.connections import LocalConnection
from devices.errors import TargetError
from devices.inventory.devices import HOST, connected, find_device, known_devices, runtime_of
from devices.inventory.devices_file import (
    NAME,
    ignore_project_file_in,
    parse_devices,
    project_file,
    read_file,
    trust_project_file,
    user_file,
    write_device,
)
from devices.inventory.entries import TABLES
from devices.target import Target

ALL_KINDS = """
[devices.pi5]
connection = "ssh"
host = "pi5.local"
user = "pi"
port = 2222
jump = "me@bastion:2200,[fe80::1]:22,10.0.0.1"
identity_file = "~/.ssh/pi"
known_hosts = "hosts"
folder = "/data/lathe"
python = ["nice", "/opt/python/bin/python"]
note = "with a fan"

[devices.pixel8]
connection = "adb"
serial = "37190DLJ"
adb = "sdk/platform-tools/adb"
server_host = "lab.local"
server_port = 5038
[devices.pixel8.tools]
benchmark_model = "bin/benchmark_model"

[devices.tablet]
connection = "adb"
address = "192.168.1.5:5555"
python = "/data/data/com.termux/files/usr/bin/python"

[devices.old-board-env]
connection = "local"
python = "envs/old/bin/python"
emulated = true

[devices.orin]
connection = "ssh"
host = "orin"
tools.trtexec = "/usr/src/tensorrt/bin/trtexec"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "user" / "devices.toml"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def refusal(text: str) -> str:
    with pytest.raises(TargetError) as caught:
        for definition in parse_devices(text, Path("/somewhere/devices.toml")).values():
            if definition.fault is not None:
                raise definition.fault
    assert "/somewhere/devices.toml" in caught.value.what
    assert caught.value.fix
    return str(caught.value)


def test_host_is_the_only_device_when_there_is_no_file():
    assert known_devices() == (HOST,)
    with connected("host") as connection:
        assert type(connection) is LocalConnection


def test_devices_of_every_kind_are_read_with_all_their_keys(folder):
    write(user_file(), ALL_KINDS)
    devices = {device.name: device for device in known_devices()}
    assert list(devices) == ["host", "pi5", "pixel8", "tablet", "old-board-env", "orin"]
    assert [name for name, device in devices.items() if not device.has_python] == ["pixel8"]
    assert [name for name, device in devices.items() if device.emulated] == ["old-board-env"]
    assert devices["pi5"].definition.note == "with a fan"
    assert devices["pi5"].definition.file == user_file()


def test_tools_are_paths_on_the_device_or_absolute_ones_on_this_host(folder):
    write(user_file(), ALL_KINDS)
    assert find_device("orin").tools == {"trtexec": "/usr/src/tensorrt/bin/trtexec"}
    assert find_device("pixel8").tools == {"benchmark_model": str(folder / "user/bin/benchmark_model")}


def test_python_of_a_local_device_is_taken_from_the_folder_of_the_file_and_its_links_stay(folder):
    write(user_file(), ALL_KINDS)
    python = folder / "user" / "envs" / "old" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    with connected("old-board-env") as connection:
        assert connection.python == (str(python),)
        assert connection.run((*connection.python, "-c", ""), timeout_s=30).returncode == 0


def test_connections_get_what_the_file_says(folder):
    write(user_file(), ALL_KINDS)
    pytest.importorskip("asyncssh")
    with connected("pi5") as board:
        assert board.python == ("nice", "/opt/python/bin/python")
    with connected("pixel8") as phone:
        assert phone.python is None
    with connected("tablet") as tablet:
        assert tablet.python == ("/data/data/com.termux/files/usr/bin/python",)


def test_a_device_of_the_project_goes_before_one_of_the_user_by_the_same_name():
    write(
        user_file(), '[devices.a]\nconnection="ssh"\nhost="user"\n[devices.b]\nconnection="ssh"\nhost="user"'
    )
    write(project_file(), '[devices.a]\nconnection="ssh"\nhost="project"')
    trust_project_file()
    hosts = {device.name: device.definition.table["host"] for device in known_devices() if device is not HOST}
    assert hosts == {"a": "project", "b": "user"}


def test_an_unknown_device_is_refused_with_the_known_ones_and_where_they_are_looked_for():
    write(user_file(), '[devices.pi5]\nconnection="ssh"\nhost="pi5"')
    with pytest.raises(TargetError, match="no device 'mars'") as caught:
        find_device("mars")
    assert "host, pi5" in caught.value.why
    assert str(user_file()) in caught.value.why
    assert str(project_file()) in caught.value.why


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[devices.a]\nconnection = "ssh"\nhost = "x"\nprot = 1', "did you mean 'port'?"),
        ('[devices.a]\nconnection = "ssh"', "host is missing"),
        ('[devices.a]\nconnection = "ssh"\nhost = 5', "host: it should be a valid string (got 5)"),
        ('[devices.a]\nconnection = "ssh"\nhost = "x"\nport = "22"', "port"),
        ('[devices.a]\nconnection = "ssh"\nhost = "x"\nport = 65536', "65535"),
        ('[devices.a]\nconnection = "ssh"\nhost = "x"\nemulated = 1', "emulated"),
        ('[devices.a]\nconnection = "local"', "python is missing"),
        ('[devices.a]\nconnection = "local"\npython = []', "python"),
        ('[devices.a]\nconnection = "local"\npython = [""]', "python"),
        ('[devices.a]\nconnection = "adb"', "exactly one of serial"),
        ('[devices.a]\nconnection = "adb"\nserial = "x"\naddress = "h:1"', "exactly one of serial"),
        ('[devices.a]\nconnection = "adb"\naddress = "192.168.1.5:adb"', "HOST:PORT"),
        ('[devices.a]\nconnection = "adb"\nserial = "x"\nserver_host = "-H"', "name or address of a host"),
        ('[devices.a]\nconnection = "adb"\nserial = "x"\nserver_host = "a b"', "name or address of a host"),
        ('[devices.a]\nconnection = "ssh"\nhost = "x"\njump = "-oProxyCommand=x"', "[USER@]HOST[:PORT]"),
        ('[devices.a]\nconnection = "ssh"\nhost = "x"\njump = "me@bastion,"', "[USER@]HOST[:PORT]"),
        ('[devices.a]\nconnection = "ssh"\nhost = "x"\njump = "me@b;id"', "[USER@]HOST[:PORT]"),
        ('[devices.a]\nconnection = "carrier-pigeon"', "known ones are local, ssh, adb"),
        ("[devices.a]\nconnection = 7", "known ones are local, ssh, adb"),
        ('[devices.a]\nhost = "x"', "connection is missing"),
        ('[devices.a]\nconnection = "ssh"\nhost = "x"\ntools.trtexe = "x"', "did you mean 'trtexec'?"),
        ('[devices.host]\nconnection = "local"\npython = "x"', "'host' is always"),
        ('[devices."-x"]\nconnection = "local"\npython = "x"', "a name is made of"),
        ('[devices."a\\u001b[31m"]\nconnection = "local"\npython = "x"', "a\\x1b"),
        ("[devices]\na = 1", "device 'a'"),
        ("devices = 1", "[devices.NAME]"),
        ("[device.a]", "did you mean 'devices'?"),
        ("[devices.a]\nconnection = \n", "line 2"),
    ],
)
def test_a_wrong_file_is_refused_with_device_and_key(text, said):
    assert said in refusal(text)


def test_every_wrong_key_of_a_device_is_named_at_once():
    said = refusal('[devices.a]\nconnection = "ssh"\nprot = 1\nuser = 5')
    assert all(f"{key}" in said for key in ("prot", "user", "host is missing", "device 'a'"))


def test_names_are_those_that_a_target_can_hold():
    for name in ("pi5", "Pixel-8_pro.2", "0"):
        assert NAME.fullmatch(name)
        assert Target.parse(f"{name}/litert:fp32").device == name
    for name in ("", "-a", "a/b", "a b", "ü", "a\n"):
        assert not NAME.fullmatch(name)
        with pytest.raises(TargetError):
            Target.parse(f"{name}/litert:fp32@1x")


def test_a_wrong_entry_harms_no_other_and_is_named_when_it_is_used():
    write(
        user_file(),
        '[devices.bad]\nconnection = "ssh"\nprot = 1\n'
        '[devices.good]\nconnection = "local"\npython = "python3"\n',
    )
    assert find_device("good").has_python
    assert [device.name for device in known_devices()] == ["host", "bad", "good"]
    with pytest.raises(TargetError, match="'bad' is not well defined") as caught:
        find_device("bad")
    assert "did you mean 'port'" in caught.value.why
    (_, bad, good) = known_devices()
    assert bad.definition.fault is caught.value or str(bad.definition.fault) == str(caught.value)
    assert good.definition.fault is None
    with pytest.raises(TargetError, match="'bad' is not well defined"):
        bad.connect()


def test_a_device_is_added_beside_a_wrong_entry_and_can_replace_it():
    path = write(user_file(), '[devices.bad]\nconnection = "ssh"\n')
    write_device(path, "new", {"connection": "ssh", "host": "x"}, replace=False)
    with pytest.raises(TargetError, match="has a device 'bad' already"):
        write_device(path, "bad", {"connection": "ssh", "host": "y"}, replace=False)
    write_device(path, "bad", {"connection": "ssh", "host": "y"}, replace=True)
    assert find_device("bad").definition.table["host"] == "y"
    assert find_device("new").definition.table["host"] == "x"


def test_host_works_though_a_file_is_damaged():
    write(user_file(), "[devices.a")
    assert find_device("host") is HOST
    assert runtime_of(Target("host", "onnxruntime")).name == "onnxruntime"
    with pytest.raises(TargetError, match="not valid TOML"):
        find_device("a")


def test_a_file_that_is_no_text_or_a_folder_is_refused(folder):
    (folder / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(TargetError, match="not UTF-8"):
        read_file(folder / "binary")
    with pytest.raises(TargetError, match="cannot be read"):
        read_file(folder)


def test_a_connection_of_another_distribution_is_found_by_its_entry_point(monkeypatch):
    entry = EntryPoint(
        "shell", "tests.devices.local_shell:ShellConnection", devices.inventory.devices_file.ENTRY_POINTS
    )
    monkeypatch.setattr(devices.added, "entry_points", lambda group: [entry] * (group == entry.group))
    write(user_file(), '[devices.a]\nconnection = "shell"\npath = "/usr/bin:/bin"\nnote = "other"')
    assert find_device("a").has_python
    with connected("a") as connection:
        assert connection.run(("true",), timeout_s=30).returncode == 0
    assert "colour" in refusal('[devices.a]\nconnection = "shell"\ncolour = "red"')


def test_write_device_keeps_comments_and_other_devices(folder):
    path = write(user_file(), '# mine\n[devices.a] # first\nconnection = "ssh"\nhost = "a"\n\n# the end\n')
    path.chmod(0o600)
    write_device(path, "b", {"connection": "local", "python": "/usr/bin/python3"}, replace=False)
    write_device(path, "a", {"connection": "ssh", "host": "new"}, replace=True)
    text = path.read_text()
    assert all(comment in text for comment in ("# mine\n", "# first\n", "# the end\n"))
    assert {name: entry.connection for name, entry in read_file(path).items()} == {"a": "ssh", "b": "local"}
    assert read_file(path)["a"].table["host"] == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["devices.toml"]


@pytest.mark.parametrize("text", ["", 'devices = {a = {connection = "local", python = "x"}}', "[devices]\n"])
def test_write_device_adds_to_files_of_every_form(text):
    path = write(user_file(), text)
    table = {"connection": "ssh", "host": 'odd "host" \\ \n', "port": 22}
    assert write_device(path, "new.one", table, replace=False).table == table
    assert dict(read_file(path)["new.one"].table) == table


def test_write_device_refuses_what_it_could_not_read_again(folder):
    path = write(user_file(), '[devices.a]\nconnection = "ssh"\nhost = "a"\n')
    before = path.read_text()
    for name, table, said in (
        ("a", {"connection": "ssh", "host": "b"}, "already"),
        ("host", {"connection": "ssh", "host": "b"}, "'host' is always"),
        ("b", {"connection": "ssh"}, "host is missing"),
        ("b c", {"connection": "ssh", "host": "b"}, "a name is made of"),
    ):
        with pytest.raises(TargetError) as caught:
            write_device(path, name, table, replace=False)
        assert said in str(caught.value)
    assert path.read_text() == before


def test_write_device_follows_a_link_to_the_file(folder):
    real = write(folder / "dotfiles.toml", "")
    user_file().parent.mkdir()
    user_file().symlink_to(real)
    write_device(user_file(), "a", {"connection": "ssh", "host": "a"}, replace=False)
    assert user_file().is_symlink()
    assert list(read_file(real)) == ["a"]


def test_write_device_says_how_to_mend_it_when_the_folder_cannot_be_written(folder):
    (folder / "file").write_text("")
    with pytest.raises(TargetError) as caught:
        write_device(folder / "file" / "devices.toml", "a", {"connection": "ssh", "host": "a"}, replace=False)
    assert "LATHE_DEVICES" in caught.value.fix or "readable" in caught.value.fix
    assert os.fspath(folder) in caught.value.what


RUNS_CODE = """[devices.board]
connection = "local"
python = ["/bin/sh", "-c", "touch pwned"]
"""


def test_a_folders_devices_cannot_be_used_before_the_file_is_trusted(folder: Path) -> None:
    write(project_file(), RUNS_CODE)
    with pytest.raises(TargetError, match="is not trusted") as caught:
        find_device("board")
    assert "lathe devices trust" in caught.value.fix
    (_, board) = known_devices()
    with pytest.raises(TargetError, match="is not trusted"):
        board.connect()
    path, found = trust_project_file()
    assert (path, list(found)) == (project_file(), ["board"])
    assert find_device("board").has_python
    write(project_file(), RUNS_CODE + "# changed\n")
    with pytest.raises(TargetError, match="is not trusted"):
        find_device("board")


def test_an_untrusted_file_hides_the_users_device_of_that_name_only(folder: Path) -> None:
    write(user_file(), '[devices.a]\nconnection="ssh"\nhost="a"\n[devices.board]\nconnection="ssh"\nhost="b"')
    write(project_file(), RUNS_CODE)
    assert find_device("a").definition is not None
    with pytest.raises(TargetError, match="is not trusted"):
        find_device("board")


def test_a_folder_that_is_ignored_defines_no_device_even_if_it_is_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.inventory.devices_file, "_ignored", set())
    write(project_file(), RUNS_CODE)
    trust_project_file()
    ignore_project_file_in(folder)
    assert known_devices() == (HOST,)


def test_a_file_that_lathe_wrote_itself_is_trusted_unless_it_was_not_before(folder: Path) -> None:
    table = {"connection": "ssh", "host": "a"}
    write_device(project_file(), "a", table, replace=False)
    assert find_device("a").definition is not None
    write(project_file(), RUNS_CODE)
    write_device(project_file(), "a", table, replace=False)
    with pytest.raises(TargetError, match="is not trusted"):
        find_device("a")


def test_devices_that_are_added_at_once_are_all_kept(folder: Path) -> None:
    names = [f"board-{number}" for number in range(12)]

    def add(name: str) -> None:
        write_device(user_file(), name, {"connection": "ssh", "host": name}, replace=False)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(add, names))
    assert set(read_file(user_file())) == set(names)


@pytest.mark.parametrize(
    "text",
    [
        '[devices]\nbad = "x"\nworse = 5\n\n[devices.good]\nconnection = "local"\npython = "python3"\n',
        'devices = { bad = ["x"], worse = 5, good = { connection = "local", python = "python3" } }\n',
    ],
)
def test_an_entry_that_is_no_table_can_be_replaced(folder: Path, text: str) -> None:
    write(user_file(), text)
    write_device(user_file(), "bad", {"connection": "ssh", "host": "x"}, replace=True)
    found = read_file(user_file())
    assert {name: entry.connection for name, entry in found.items()} == {
        "bad": "ssh",
        "good": "local",
        "worse": "",
    }


def test_there_must_be_a_file_to_trust() -> None:
    with pytest.raises(TargetError, match="there is no"):
        trust_project_file()


def numbers_of(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Every number that a schema describes, wherever in it."""
    below = [each for value in schema.values() for each in (value if isinstance(value, list) else [value])]
    found = [number for each in below if isinstance(each, dict) for number in numbers_of(each)]
    return [*found, schema] if schema.get("type") in {"integer", "number"} else found


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_number_of_a_device_has_a_range(table: type[BaseModel]) -> None:
    for number in numbers_of(table.model_json_schema()):
        assert {"minimum", "exclusiveMinimum"} & number.keys(), number
        assert {"maximum", "exclusiveMaximum"} & number.keys(), number
