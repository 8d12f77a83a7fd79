"""Pools of devices.toml, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.errors import TargetError
from devices.inventory import find_device, find_pool, known_devices, known_pools, members_of
from devices.inventory.devices import runtime_of
from devices.inventory.devices_file import project_file, trust_project_file, user_file, write_device
from devices.measuring import side_by_side
from devices.target import Target

BOARDS = "".join(f'[devices.{name}]\nconnection = "ssh"\nhost = "{name}.local"\n' for name in "abc")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


def write(text: str) -> None:
    user_file().write_text(BOARDS + text)


def why(name: str) -> str:
    with pytest.raises(TargetError) as caught:
        find_pool(name)
    assert caught.value.what == f"{user_file()}: pool '{name}' is not well defined"
    assert caught.value.exit_code == 6
    with pytest.raises(TargetError):
        find_device(name)
    return caught.value.why


def test_a_pool_is_a_device_that_targets_may_name() -> None:
    write('[pool.boards]\nmembers = ["a", "b"]\n')
    assert members_of("boards") == ("a", "b")
    assert members_of("a") == ("a",)
    assert members_of("host") == ("host",)
    assert [(pool.name, pool.members) for pool in known_pools()] == [("boards", ("a", "b"))]
    assert [device.name for device in known_devices()] == ["host", "a", "b", "c"]
    assert find_device("boards").has_python
    assert runtime_of(Target("boards", "litert")).name == "litert"
    # It does not count as this machine, so it measures beside other devices.
    assert side_by_side({Target("boards", "litert"): lambda going_on: 1}) == {Target("boards", "litert"): 1}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("members = []", "it has no member: a pool has at least two"),
        ('members = ["a"]', "it has one member: a pool has at least two"),
        ('members = ["a", "a"]', "a member is named twice"),
        ('members = ["a", "z"]', "there is no device 'z' (known ones are a, b, c, phone, slow and wrong)"),
        ('members = ["a", "fone"]', "there is no device 'fone'; did you mean 'phone'? (known ones are"),
        ('members = ["a", "shelf"]', "'shelf' is a pool, and members are devices"),
        ('members = ["a", "host"]', "'host' is this machine"),
        ('members = "a"', "members should be a list of names of devices"),
        ('members = ["a", 3]', "members should be a list of names of devices"),
        ('member = ["a", "b"]', "'member' is not a key; did you mean 'members'?"),
        ('members = ["a", "phone"]', "its members are unlike, connection is ssh of 'a', adb of 'phone'"),
        ('members = ["a", "slow"]', "its members are unlike, emulated is False of 'a', True of 'slow'"),
        ('members = ["a", "wrong"]', "'wrong' cannot be used"),
    ],
)
def test_what_is_wrong_with_a_pool_is_said(text: str, expected: str) -> None:
    write(
        '[devices.phone]\nconnection = "adb"\nserial = "X"\n'
        '[devices.slow]\nconnection = "ssh"\nhost = "slow"\nemulated = true\n'
        '[devices.wrong]\nconnection = "ssh"\n'
        '[pool.shelf]\nmembers = ["b", "c"]\n'
        f"[pool.boards]\n{text}\n"
    )
    assert expected in why("boards")
    assert find_device("a").name == "a", "the others can be used"


def test_a_device_in_two_pools_makes_both_wrong() -> None:
    write('[pool.one]\nmembers = ["a", "b"]\n[pool.other]\nmembers = ["c", "b"]\n')
    assert why("one") == "'b' is in the pool 'other' too"
    assert why("other") == "'b' is in the pool 'one' too"


def test_every_pool_that_has_a_member_too_is_named() -> None:
    pools = {"one": '"a", "b"', "two": '"c", "b"', "three": '"b", "a"'}
    write("".join(f"[pool.{name}]\nmembers = [{members}]\n" for name, members in pools.items()))
    assert why("one").splitlines() == [
        "'a' is in the pool 'three' too",
        "     'b' is in the pools 'two' and 'three' too",
    ]


@pytest.mark.parametrize("name", ["c", "host"])
def test_a_pool_called_as_a_device_is_wrong_and_the_device_can_be_used(name: str) -> None:
    write(f'[pool.{name}]\nmembers = ["a", "b"]\n[pool.boards]\nmembers = ["a", "b"]\n')
    assert find_device(name).name == name
    assert find_pool(name) is None
    assert members_of(name) == (name,)
    wrong, good = known_pools()
    assert wrong.fault is not None
    assert wrong.fault.why == f"a device is called '{name}' already"
    assert good.fault is None, "its members are in no other pool that could be used"
    assert members_of("boards") == ("a", "b")


def test_a_device_is_not_added_under_the_name_of_a_pool() -> None:
    write('[pool.boards]\nmembers = ["a", "b"]\n')
    before = user_file().read_text()
    for file in (user_file(), project_file()):
        with pytest.raises(TargetError) as caught:
            write_device(file, "boards", {"connection": "ssh", "host": "d"}, replace=True)
        assert caught.value.what == f"{user_file()} has a pool 'boards' already"
    assert user_file().read_text() == before
    assert not project_file().exists()


def test_the_nearest_device_or_pool_is_named() -> None:
    write('[pool.boards]\nmembers = ["a", "b"]\n')
    with pytest.raises(TargetError) as caught:
        find_device("board")
    assert (
        "known devices are host, a, b, c, boards; did you mean 'boards'? (others would be" in caught.value.why
    )


def test_pools_of_the_folder_count_when_it_is_trusted_and_take_members_of_the_user() -> None:
    write("")
    project_file().write_text('[pool.boards]\nmembers = ["a", "b"]\n')
    with pytest.raises(TargetError, match="is not trusted"):
        find_pool("boards")
    trust_project_file()
    assert members_of("boards") == ("a", "b")


def test_adding_a_device_keeps_the_pools() -> None:
    write('[pool.boards]\nmembers = ["a", "b"]\n')
    write_device(user_file(), "d", {"connection": "ssh", "host": "d"}, replace=False)
    assert members_of("boards") == ("a", "b")
    with pytest.raises(TargetError, match="known devices are host, a, b, c, d, boards"):
        find_device("e")


def test_an_untrusted_file_harms_no_pool_of_the_user() -> None:
    write('[pool.boards]\nmembers = ["a", "b"]\n')
    project_file().write_text('[pool.others]\nmembers = ["a", "c"]\n[pool.more]\nmembers = ["boards", "c"]\n')
    assert members_of("boards") == ("a", "b")
    for name in ("others", "more"):
        with pytest.raises(TargetError, match="is not trusted"):
            find_pool(name)
