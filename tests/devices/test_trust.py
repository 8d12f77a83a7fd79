from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devices import trust
from devices.digests import file_digest
from devices.errors import MeasurementError, TargetError


@pytest.fixture(autouse=True)
def _own_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(trust.ENVIRONMENT, raising=False)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"a program")
    return path


def run(models: Sequence[Path], *, trusting: bool = False) -> dict[Path, bytes]:
    """What would run of each model."""
    with trust.trusted_files(models, trusting=trusting) as files:
        return {path: file.read_bytes() for path, file in files.items()}


def test_what_runs_of_a_program_is_what_was_looked_at(program: Path, tmp_path: Path) -> None:
    data = tmp_path / "a.onnx"
    data.write_bytes(b"data")
    with trust.trusted_files([program, data], trusting=True) as files:
        program.write_bytes(b"another program")
        assert files[program].read_bytes() == b"a program"
        assert files[program].name == program.name
        assert files[data] == data
        folder = files[program].parent
        assert folder.stat().st_mode & 0o077 == 0 or folder.parent.stat().st_mode & 0o077 == 0
    assert not folder.exists()
    with pytest.raises(MeasurementError):
        run([program])


def test_a_program_is_refused_until_it_is_trusted_once_and_again_when_it_changes(program: Path) -> None:
    with pytest.raises(MeasurementError, match="is a program") as caught:
        run([program])
    assert "--trust" in caught.value.fix
    run([program], trusting=True)
    run([program])
    copy = program.rename(program.with_name("copy.pt2"))
    run([copy])
    copy.write_bytes(b"another program")
    with pytest.raises(MeasurementError):
        run([copy])


HOSTILE = {
    "climbs out": lambda: member("../../../../tmp/lathe-was-here"),
    "climbs out by backslashes": lambda: member("model\\..\\..\\lathe-was-here"),
    "is absolute": lambda: member("/tmp/lathe-was-here"),
    "is a link": lambda: member("model/data/aotinductor/model/lib.so", mode=stat.S_IFLNK | 0o777),
}


def member(name: str, mode: int = stat.S_IFREG | 0o600) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.filename = name  # as it is: the constructor turns backslashes on some systems
    made.external_attr = mode << 16
    return made


def package(path: Path, *others: zipfile.ZipInfo) -> Path:
    """Like what AOTInductor writes: a library with what belongs to it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/aotinductor/model/code.so", b"\x7fELF")
        for other in others:
            archive.writestr(other, b"/etc/passwd")
    return path


@pytest.mark.parametrize("trusting", [False, True])
@pytest.mark.parametrize("made", HOSTILE.values(), ids=HOSTILE)
def test_a_package_that_would_be_unpacked_elsewhere_is_refused_even_if_it_is_trusted(
    made: Callable[[], zipfile.ZipInfo], tmp_path: Path, *, trusting: bool
) -> None:
    path = package(tmp_path / "model.pt2", made())
    with pytest.raises(MeasurementError, match="is an archive that is not opened") as caught:
        run([path], trusting=trusting)
    assert "outside of the archive's folder" in caught.value.why
    assert not trust.list_file().exists()


def test_a_package_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("m/huge", "w") as stream:
        for _ in range(80):
            stream.write(bytes(1 << 20))
    with pytest.raises(MeasurementError, match="is an archive that is not opened") as caught:
        run([path], trusting=True)
    assert "suspiciously small" in caught.value.why


def test_a_package_of_machine_code_runs_only_after_it_was_trusted(tmp_path: Path) -> None:
    path = package(tmp_path / "model.pt2")
    with pytest.raises(MeasurementError, match="is a program, and you have not said that you trust it"):
        run([path])
    assert run([path], trusting=True)[path] == path.read_bytes()


def test_models_that_are_data_need_no_trust(tmp_path: Path) -> None:
    for name in ("a.onnx", "a.tflite"):
        (tmp_path / name).write_bytes(b"data")
        run([tmp_path / name])
    assert not trust.list_file().exists()


def test_a_file_is_trusted_in_its_place_with_its_content_only(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_bytes(b"one")
    assert not trust.is_trusted(path, b"one")
    trust.trust(path, file_digest(path))
    assert trust.is_trusted(path, b"one")
    assert not trust.is_trusted(path, b"two")
    assert not trust.is_trusted(tmp_path / "other" / "devices.toml", b"one")


def test_the_environment_names_files_that_are_trusted_whatever_is_in_them(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trust.ENVIRONMENT, f"/elsewhere:{program}")
    run([program])
    assert trust.is_trusted(program, b"anything")


@pytest.mark.parametrize("content", ["", "[", "{}", '{"trusted": 1}', '{"trusted": [1]}', "[" * 5000])
def test_a_list_that_cannot_be_read_trusts_nothing(program: Path, content: str) -> None:
    trust.list_file().parent.mkdir(parents=True)
    trust.list_file().write_text(content)
    with pytest.raises(TargetError, match="list of trusted files"):
        run([program])


def test_what_several_say_at_once_is_all_kept(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.pt2" for number in range(16)]
    for path in paths:
        path.write_bytes(path.name.encode())
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(lambda path: trust.trust(path, file_digest(path)), paths))
    run(paths)
