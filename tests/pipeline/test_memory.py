"""What needs more memory than there is, is refused before it takes any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.images import decode_all, resize_all
from pipeline.errors import RecipeError
from pipeline.memory import machine_bytes, require_room, training_bytes
from tests.peak_memory import grown_bytes


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))


def test_a_training_needs_weights_gradients_momentum_and_the_outputs_of_its_layers() -> None:
    weights = 4 * 9 + 4 + 144 * 10 + 10
    outputs = 32 * (4 * 6 * 6 + 10)
    assert training_bytes(network, (1, 8, 8), 32) == 4 * (3 * weights + outputs)


def huge() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(10**6, 10**6), nn.Linear(10**6, 10))


def test_the_memory_of_a_network_that_cannot_be_built_is_not_found_out_by_taking_it() -> None:
    needed = training_bytes(huge, (1, 1000, 1000), 4)
    assert needed is not None
    assert needed > 12e12
    assert grown_bytes(training_bytes, huge, (1, 1000, 1000), 4) < 200_000_000
    with pytest.raises(RecipeError, match="needs at least 12000") as caught:
        require_room(needed, "training it")
    assert "this machine has" in caught.value.why


def test_a_network_that_is_not_built_from_shapes_alone_has_no_estimate() -> None:
    def loaded() -> nn.Module:
        module = network()
        module.load_state_dict({"0.bias": torch.zeros(4)})
        return module

    assert training_bytes(loaded, (1, 8, 8), 2) is None


def test_what_fits_is_not_refused() -> None:
    require_room(machine_bytes() // 2, "half of it")
    assert machine_bytes() > 1e8


def test_images_that_would_not_fit_are_refused_before_one_is_decoded() -> None:
    count = 100_000
    with pytest.raises(RecipeError, match="to hold 100000 images of 4096x4096 pixels needs at least"):
        decode_all([b"none"] * count, [""] * count, 4096)
    with pytest.raises(RecipeError, match="images of 4096x4096"):
        resize_all(np.broadcast_to(np.zeros((1, 8, 8, 3), np.uint8), (count, 8, 8, 3)), 4096)
