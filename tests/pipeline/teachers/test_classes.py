from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.errors import TeacherError
from pipeline.teachers.classes import Outputs, outputs_of_classes, written

CLASSES = ("cat", "dog", "fire engine")
IMAGENET = ("tabby, tabby cat", "Egyptian cat", "dog", "bark", "fire engine, fire truck")


def _outputs(
    given: Any = None,
    count: int = 3,
    names: Sequence[str] = (),
    *,
    classes: Sequence[str] = CLASSES,
    told: list[str] | None = None,
) -> Outputs | None:
    tell = (lambda line: None) if told is None else told.append
    return outputs_of_classes(given, classes, count, names, teacher="net", tell=tell)


def test_as_many_outputs_as_classes_stand_for_them_in_order() -> None:
    assert _outputs() is None


def test_a_table_chooses_outputs_by_number_and_by_name() -> None:
    assert _outputs({"cat": 2, "dog": 0, "fire engine": 1}) == ((2,), (0,), (1,))
    assert _outputs({"cat": 0, "dog": 1, "fire engine": 2}) is None
    table = {"fire engine": IMAGENET[4], "cat": (0, "Egyptian cat"), "dog": "dog"}
    assert _outputs(table, 5, IMAGENET) == ((0, 1), (2,), (4,))


def test_classes_of_the_same_names_are_found_among_more_and_told() -> None:
    told: list[str] = []
    assert _outputs(None, 5, ("x", "Fire_Engine", "DOG", "y", "cat"), told=told) == ((4,), (2,), (1,))
    assert "taken by name" in told[0]
    # A synonym of ImageNet counts as a name.
    assert _outputs(None, 5, IMAGENET, classes=("tabby", "dog", "fire truck")) == ((0,), (2,), (4,))


def test_other_names_in_the_same_number_are_taken_in_order_and_told() -> None:
    told: list[str] = []
    assert _outputs(None, 3, ("Katze", "Hund", "Feuerwehr"), told=told) is None
    assert "Katze for cat, Hund for dog" in told[0]


@pytest.mark.parametrize(
    ("given", "names", "said"),
    [
        (None, (), "5 outputs, but the data have 3 classes"),
        (None, IMAGENET, "none is called 'cat'"),
        ({"cat": 0, "dog": 1}, (), "'fire engine' is missing"),
        ({"cat": 0, "dogs": 1, "fire engine": 2}, (), "did you mean 'dog'?"),
        ({"cat": 0, "dog": 0, "fire engine": 2}, (), "output 0 to more than one class"),
        ({"cat": 0, "dog": 9, "fire engine": 2}, (), "no output 9"),
        ({"cat": 0, "dog": "dog", "fire engine": 2}, (), "its outputs have no names"),
        ({"cat": "Egyptian cats", "dog": "dog", "fire engine": 4}, IMAGENET, "did you mean 'Egyptian cat'?"),
    ],
)
def test_what_names_no_outputs_for_the_classes_is_refused(given: Any, names: Any, said: str) -> None:
    with pytest.raises(TeacherError) as caught:
        _outputs(given, 5, names)
    assert said in str(caught.value)


def test_a_written_table_is_read_back_as_the_same() -> None:
    table = {'say "cat"': 3, "\u00c4pfel & Birnen": [1, 2], "dog": "the dog", "0": [4]}
    read = tomllib.loads(written(table))["classes"]
    assert read == {**table, "0": 4}
