from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.suspicion import Suspicion, found_order, suspicion_of
from pipeline.teachers.teacher import AdaptedNetwork

PREPROCESSING = Preprocessing((0.4, 0.45, 0.5), (0.25, 0.25, 0.25))
COLOURS = np.array([[220, 60, 20], [40, 200, 60], [30, 60, 210]], np.uint8)


@pytest.fixture(name="dataset", scope="module")
def _dataset() -> Dataset:
    """Images of one colour each: red, green and blue, with noise."""
    generator = np.random.default_rng(0)
    labels = np.tile(np.arange(3), 60)
    images = COLOURS[labels][:, None, None] + generator.integers(0, 30, (180, 4, 4, 3)).astype(np.uint8)
    split = Split(images, labels)
    return Dataset("colours", split, split, split, ("red", "green", "blue"), PREPROCESSING, "0")


class Brightest(nn.Module):
    """Names the channel that is brightest; images must come as it wants them, or it names the last."""

    def __init__(self, low: float, high: float, order: tuple[int, ...], *, bgr: bool = False) -> None:
        super().__init__()
        self.low, self.high, self.order, self.bgr = low, high, list(order), bgr

    def forward(self, images: Tensor) -> Tensor:
        logits = images.mean((2, 3))
        logits = logits.flip(1) if self.bgr else logits
        within = (images.amin((1, 2, 3)) >= self.low) & (images.amax((1, 2, 3)) <= self.high)
        span = images.amax((1, 2, 3)) - images.amin((1, 2, 3)) > 0.3 * (self.high - self.low)
        lost = torch.tensor([0.0, 0.0, 1.0]).expand_as(logits)
        return torch.where((within & span)[:, None], logits[:, self.order], lost)


def _suspicion(network: nn.Module, dataset: Dataset, **keys: Any) -> Suspicion | None:
    adapted = AdaptedNetwork(network, TeacherConfig(**keys), PREPROCESSING).eval()
    shown = torch.from_numpy(dataset.preprocessing(dataset.validation.images)).permute(0, 3, 1, 2)
    return suspicion_of(adapted, dataset, adapted(shown).argmax(1).numpy())


def test_a_teacher_that_is_right_is_not_suspected(dataset: Dataset) -> None:
    assert _suspicion(Brightest(-2, 3, (0, 1, 2)), dataset) is None


def test_permuted_classes_are_named_with_the_key_that_puts_them_right(dataset: Dataset) -> None:
    found = _suspicion(Brightest(-2, 3, (1, 2, 0)), dataset)
    assert found is not None
    assert "'blue' for 'red', 'red' for 'green', 'green' for 'blue'" in found.cause
    assert "100.00% of the validation slice right, and 0.00% as it is" in found.cause
    line = found.fix.removeprefix("set in [[teacher]] ")
    assert tomllib.loads(line) == {"classes": {"red": 2, "green": 0, "blue": 1}}


def test_a_teacher_that_wants_bytes_with_blue_first_is_told_how_to_get_them(dataset: Dataset) -> None:
    network = Brightest(0, 255, (0, 1, 2), bgr=True)
    found = _suspicion(network, dataset)
    assert found is not None
    assert "between 0 and 255, blue first" in found.cause
    keys = tomllib.loads(
        found.fix.removeprefix("set in [[teacher]] ")
        .replace(", std", "\nstd")
        .replace(", channel_order", "\nchannel_order")
    )
    assert _suspicion(network, dataset, **keys) is None


def test_a_teacher_that_knows_nothing_is_not_explained(dataset: Dataset) -> None:
    class Blind(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([[0.0, 0.0, 1.0]]).expand(len(images), 3)

    assert _suspicion(Blind(), dataset) is None


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(range(6)),
    st.floats(0.6, 1.0),
    st.integers(0, 2**31),
)
def test_an_order_is_found_whenever_most_answers_follow_it(order: list[int], sure: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(300) % 6)
    guessed = generator.random(300) > sure
    predicted = np.where(guessed, generator.integers(0, 6, 300), np.array(order)[labels])
    found = found_order(predicted, labels, 6)
    assert found == (None if order == sorted(order) else tuple(order))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 200), st.integers(2, 50), st.integers(0, 2**31))
def test_no_order_is_found_in_guesses(count: int, classes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels, predicted = generator.integers(0, classes, (2, count))
    assert found_order(predicted, labels, classes) is None
