from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.distill.colours import recoloured
from pipeline.distill.rand_augment import OPERATIONS, rand_augmented


def images(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 7, 9, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_colours_change_by_no_more_than_is_asked_for(channels: int) -> None:
    given = np.full((50, 4, 4, channels), 100, np.uint8)
    changed = recoloured(given, 0.2, np.random.default_rng(1))
    # One colour has no contrast, and grey no saturation: what is left is brightness.
    assert changed.min() >= 80
    assert changed.max() <= 120
    assert len(np.unique(changed)) > 10
    assert all(len(np.unique(image)) == 1 for image in changed)


def test_strength_0_changes_nothing_and_grey_stays_grey() -> None:
    assert (recoloured(images(), 0, np.random.default_rng(0)) == images()).all()
    grey = np.repeat(images(1), 3, axis=3)
    changed = recoloured(grey, 0.9, np.random.default_rng(0))
    assert np.ptp(changed.astype(int), axis=3).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_repeats_with_its_seed_and_keeps_the_shape(channels: int) -> None:
    given = images(channels)
    background = (128,) * channels
    first, again, other = (
        rand_augmented(given, 2, 7, np.random.default_rng(seed), background) for seed in (0, 0, 1)
    )
    assert first.shape == given.shape
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_operation_takes_grey_and_colour_and_all_strengths(name: str, mode: str) -> None:
    pixels = images(1 if mode == "L" else 3)[0]
    image = Image.fromarray(pixels.squeeze())
    background = (7,) * (1 if mode == "L" else 3)
    for strength in (-1.0, -0.3, 0.0, 0.3, 1.0):
        changed = OPERATIONS[name](image, strength, background)
        assert (changed.mode, changed.size) == (mode, image.size)


@pytest.mark.parametrize("name", ["rotate", "shear-x", "shear-y", "shift-x", "shift-y", "contrast"])
def test_strength_0_is_the_image_itself(name: str) -> None:
    image = Image.fromarray(images()[0])
    assert (np.asarray(OPERATIONS[name](image, 0.0, (0, 0, 0))) == images()[0]).all()


def test_what_comes_from_outside_the_image_has_the_background_colour() -> None:
    image = Image.new("RGB", (20, 20), (255, 0, 0))
    moved = np.asarray(OPERATIONS["shift-x"](image, 1.0, (1, 2, 3)))
    assert (moved[:, -8:] == (1, 2, 3)).all()
    assert (moved[:, :10] == (255, 0, 0)).all()
