from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.distill.mixing import mixed
from pipeline.distill.settings import DistillationSettings

LABELS = functional.one_hot(torch.arange(6)).float()
FLAT = torch.arange(6.0)[:, None, None, None].expand(6, 1, 8, 12)
"""Image k has the value k everywhere, and the label k."""


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_in_the_shares_of_the_pixels(kind: str, seed: int) -> None:
    given = {"mixup": 0.0, "cutmix": 0.0, kind: 1.0}
    images, labels = mixed(FLAT, LABELS, np.random.default_rng(seed), **given)
    assert images.shape == FLAT.shape
    assert torch.allclose(labels.sum(dim=1), torch.ones(6))
    # The mean of the pixels is the mean of the values by the shares that the labels say.
    assert torch.allclose(images.mean(dim=(1, 2, 3)), labels @ torch.arange(6.0), atol=1e-5)
    if kind == "cutmix":
        assert set(images.unique().tolist()) <= set(range(6))


def test_nothing_is_mixed_where_nothing_is_asked_for() -> None:
    images, labels = mixed(FLAT, LABELS, np.random.default_rng(0), mixup=0, cutmix=0)
    assert images is FLAT
    assert labels is LABELS


def test_where_both_are_wanted_each_batch_has_one_of_them() -> None:
    kinds = set()
    for seed in range(20):
        images, _ = mixed(FLAT, LABELS, np.random.default_rng(seed), mixup=1, cutmix=1)
        kinds.add(all(image.max() == image.min() for image in images))
    assert kinds == {True, False}


@pytest.mark.parametrize("kind", ["oracle", "decoupled_kd"])
def test_losses_that_ask_which_class_is_right_take_no_mixed_images(kind: str) -> None:
    with pytest.raises(ValueError, match="which class is right"):
        DistillationSettings.model_validate({"mixup": 0.2, "loss": [{"kind": kind}]})
