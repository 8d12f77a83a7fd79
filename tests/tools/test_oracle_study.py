"""The part of the study of the oracle loss that searches: sizes of what is compared, claims of its page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from pipeline.spaces.add_on.space import AddOnSpace
from pipeline.spaces.base import Architecture
from tools.studies.oracle_search import Searches, SearchScale, section, size_of

WORDS = {"labels": "labels alone", "oracle": "members that are right"}
FOUND = [["conv3", "output", "added"], ["identity", "output", "series"], ["separable3", "output", "series"]]
GRID = {f"searched {one} {other}": 50.0 for one in WORDS for other in WORDS}


def searches(found: dict[str, Any], seeds: int = 2) -> Searches:
    data = SimpleNamespace(input_shape=(3, 16, 16), classes=("a",) * 10)
    study: Any = SimpleNamespace(dataset=data, known=found.get)
    arms: Any = dict.fromkeys(WORDS)
    return Searches(study, SearchScale(2, 10, 2, seeds), arms, lambda loss: loss, Path())  # type: ignore[arg-type]


def test_additions_drawn_at_random_and_a_wider_backbone_are_as_large_as_what_was_found() -> None:
    trained = list[tuple[AddOnSpace, Architecture]]()

    def note(_: Searches, space: AddOnSpace, architecture: Architecture, final: str, seed: int) -> float:
        assert final == "oracle"
        trained.append((space, architecture))
        return 0.0

    study = searches({"search oracle 0": FOUND})
    with patch.object(Searches, "_trained", note):
        for name, compute in study._units(0):
            if name.startswith(("random", "widened", "searched oracle oracle")):
                compute()
    (found, *others) = (size_of(space, architecture) for space, architecture in trained)
    assert len(others) == 3
    assert all(abs(size / found - 1) < 0.06 for size in others)
    assert len({architecture.identity for _, architecture in trained[1:3]}) == 2
    assert size_of(trained[3][0], trained[3][0].reference()) == others[2]


def test_what_was_not_run_is_not_claimed() -> None:
    assert "Not run at this scale yet" in section(searches({}), WORDS, str)


def test_effects_are_differences_of_the_same_seed() -> None:
    found = {f"{name} {seed}": value + seed for name, value in GRID.items() for seed in range(2)}
    found |= {"random 0 0": 40.0, "random 1 0": 44.0, "random 0 1": 40.0, "widened 1": 52.0}
    text = section(searches(found), WORDS, lambda values: f"<{values}>")
    assert "| searched additions, not random ones | <[8.0]> | 1 |" in text
    assert "| searched additions, not a wider backbone | <[-1.0]> | 1 |" in text
    assert "| labels alone | <[50.0, 51.0]> | <[50.0, 51.0]> |" in text


def test_half_of_the_random_additions_are_no_mean() -> None:
    study = searches({"random 0 0": 1.0, "random 0 1": 2.0, "random 1 1": 4.0})
    assert study.mean_of_randoms(0) is None
    assert study.mean_of_randoms(1) == pytest.approx(3.0)
