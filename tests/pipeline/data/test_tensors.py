"""Images as the tensors that networks take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.data.base import Preprocessing, Split
from pipeline.data.tensors import batches_of, to_tensor

PREPROCESSING = Preprocessing((0.5,), (0.3,))


@pytest.mark.parametrize(
    ("height", "width", "count", "sizes"),
    [(8, 8, 300, [256, 44]), (224, 224, 60, [47, 13]), (1600, 1500, 2, [1, 1])],
    ids=["small", "photographs", "larger than a batch may be"],
)
def test_batches_are_the_whole_split_in_order_and_those_of_large_images_hold_fewer(
    height: int, width: int, count: int, sizes: list[int]
) -> None:
    images = np.zeros((count, height, width, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(count) % 251
    split = Split(images, np.zeros(count, np.int64))
    batches = list(batches_of(split, PREPROCESSING))
    assert [len(batch) for batch in batches] == sizes
    first = torch.cat([batch[:, 0, 0, 0] for batch in batches])
    assert torch.equal(first, to_tensor(images[:, :1, :1], PREPROCESSING)[:, 0, 0, 0])
