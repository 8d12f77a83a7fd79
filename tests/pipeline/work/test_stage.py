"""A stage runs again exactly when something changed that decides its result."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.work.canonical import OutsideFile, StoredFile, by_digest, canonical, without_influence
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import Stage, StageFolder, stage


@dataclass(frozen=True)
class Opened:
    """Something whose digest says all."""

    digest: str
    note: str = ""


@dataclass(frozen=True)
class Input:
    number: float
    names: tuple[str, ...]
    opened: Opened = by_digest()
    workers: int = without_influence(1)


@dataclass(frozen=True)
class Text:
    value: str
    file: StoredFile


calls: list[Input] = []


@stage("write", packages=("numpy",))
def write(given: Input, folder: StageFolder, services: None) -> Text:
    calls.append(given)
    (folder / "text.txt").write_text(str(given.number))
    return Text(str(given.number), folder.stored("text.txt"))


@dataclass(frozen=True)
class ReadInput:
    file: StoredFile


@dataclass(frozen=True)
class Number:
    value: float


@stage("read")
def read(given: ReadInput, folder: StageFolder, services: None) -> Number:
    return Number(float(folder.find(given.file).read_text()))


answers: list[float] = []


def _is_positive(value: Number) -> bool:
    return value.value > 0


@stage("answer", final=_is_positive)
def answer(given: Input, folder: StageFolder, services: None) -> Number:
    return Number(answers.pop(0))


INPUT = Input(1.5, ("a",), Opened("d"))


@pytest.fixture(autouse=True, name="_clear")
def clear() -> None:
    calls.clear()


def cached(folder: Path, given: Input) -> bool:
    with WorkFolder(folder).opened() as work:
        work.run(write, given, None)
        return work.records[-1].cached


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        (INPUT, False),
        (replace(INPUT, number=2.5), True),
        (replace(INPUT, names=("b",)), True),
        (replace(INPUT, names=()), True),
        (replace(INPUT, opened=Opened("e")), True),
        (replace(INPUT, opened=Opened("d", "opened elsewhere")), False),
        (replace(INPUT, workers=2), False),
    ],
)
def test_a_stage_runs_again_when_a_field_that_counts_is_another(
    tmp_path: Path, changed: Input, again: bool
) -> None:
    assert not cached(tmp_path, INPUT)
    assert cached(tmp_path, changed) is not again


@pytest.mark.parametrize("package", ["numpy", "lathe-deploy"])
def test_a_stage_runs_again_with_another_version_of_its_packages_or_of_lathe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    cached(tmp_path, INPUT)
    monkeypatch.setattr("pipeline.work.stage.version", lambda name: "9" if name == package else "1")
    assert not cached(tmp_path, INPUT)
    assert cached(tmp_path, INPUT)
    monkeypatch.setattr("pipeline.work.stage.version", lambda name: "2" if name == "torch" else "1")
    assert not cached(tmp_path, INPUT)
    monkeypatch.setattr("pipeline.work.stage.version", lambda name: "3" if name == "torch" else "1")
    assert cached(tmp_path, INPUT)


def test_a_file_counts_by_its_content_and_is_found_where_the_work_folder_lies_now(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "here").opened() as work:
        file = work.run(write, INPUT, None).file
        assert work.run(read, ReadInput(file), None) == Number(1.5)
    shutil.move(tmp_path / "here", tmp_path / "there")
    with WorkFolder(tmp_path / "there").opened() as work:
        file = work.run(write, INPUT, None).file
        assert work.find(file).read_text() == "1.5"
        work.run(read, ReadInput(file), None)
        # The same content from another stage's folder is the same input.
        work.run(read, ReadInput(replace(file, stage="other", path="other.txt")), None)
        assert [record.cached for record in work.records] == [True, True]


def test_a_file_of_another_kind_is_another_input() -> None:
    file = StoredFile("s", "a.onnx", "0" * 64)
    assert read.key(ReadInput(file)) != read.key(ReadInput(replace(file, path="a.tflite")))


def test_a_result_that_is_not_final_is_made_again(tmp_path: Path) -> None:
    answers[:] = [-1.0, 1.0, 2.0]
    with WorkFolder(tmp_path).opened() as work:
        found = [work.run(answer, INPUT, None).value for _ in range(3)]
        assert [record.cached for record in work.records] == [False, False]
    assert found == [-1.0, 1.0, 1.0]


def _with(given: Input, folder: StageFolder, services: None, extra: int) -> Number:
    return Number(extra)


class Holder:
    def method(self, given: Input, folder: StageFolder, services: None) -> Number:
        return Number(1)


def _closure() -> Callable[..., Any]:
    secret = 3

    def inner(given: Input, folder: StageFolder, services: None) -> Number:
        return Number(secret)

    return inner


@pytest.mark.parametrize(
    "function",
    [_closure(), Holder().method, functools.partial(_with, extra=3), lambda *_: Number(1)],
    ids=["closure", "method", "partial", "lambda"],
)
def test_what_could_hold_values_that_no_key_names_is_no_stage(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="not a function of a module"):
        stage("hidden")(function)


@pytest.mark.parametrize("value", [Path("x"), print, object(), {1: 2}, b"bytes"])
def test_a_value_whose_content_cannot_be_told_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical({"part": value})


def test_an_outside_file_counts_by_name_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one, moved = tmp_path / "weights.pt", tmp_path / "a" / "weights.pt"
    one.write_bytes(b"1")
    moved.write_bytes(b"1")
    assert canonical(OutsideFile.of(one)) == canonical(OutsideFile.of(moved))
    moved.write_bytes(b"2")
    assert canonical(OutsideFile.of(one)) != canonical(OutsideFile.of(moved))
    assert canonical(OutsideFile.of(tmp_path / "no" / "weights.pt")) != canonical(OutsideFile.of(one))


class Kind(StrEnum):
    ONE = "one"


@dataclass(frozen=True)
class Other:
    number: float
    names: tuple[str, ...] = ()


def test_classes_with_equal_fields_are_told_apart() -> None:
    @dataclass(frozen=True)
    class Twin:
        number: float
        names: tuple[str, ...] = ()

    assert canonical(Twin(1.0)) != canonical(Other(1.0))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just(Kind.ONE),
    lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values, st.lists(values, min_size=2, max_size=2, unique_by=repr))
def test_any_change_anywhere_is_another_key(around: object, ends: list[object]) -> None:
    declared: Stage[Any, None, Number] = stage("any")(_any)
    one, other = ({"around": around, "end": (end,)} for end in ends)
    assert declared.key(one) == declared.key({"end": one["end"], "around": around})
    if _plain(ends[0]) != _plain(ends[1]):
        assert declared.key(one) != declared.key(other)


def _any(given: object, folder: StageFolder, services: None) -> Number:
    return Number(0)


def _plain(value: object) -> object:
    """Values that are the same JSON are the same; 1, 1.0 and True are not."""
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in value}
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return ("str", str(value)) if isinstance(value, Kind) else (type(value).__name__, repr(value))
