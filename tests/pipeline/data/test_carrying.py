from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.base import Split
from pipeline.data.carrying import carried, opened
from pipeline.data.store import mapped


@pytest.mark.parametrize("part", ["all", "first", "after"])
def test_images_in_a_file_travel_by_its_name_and_are_the_same_ones(tmp_path: Path, part: str) -> None:
    path, shape = tmp_path / "images", (32, 32, 3)
    path.write_bytes(np.random.default_rng(0).bytes(100 * 32 * 32 * 3))
    whole = Split(mapped(path, 100, shape), np.arange(100))
    split = {"all": whole, "first": whole.first(30), "after": whole.after(30)}[part]
    sent = pickle.dumps(carried(split))
    assert len(sent) < 4000
    there = opened(pickle.loads(sent))
    assert np.array_equal(there.images, split.images)
    assert np.array_equal(there.labels, split.labels)


def test_images_in_memory_travel_as_they_are() -> None:
    split = Split(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), np.arange(4))
    assert carried(split) is split
    assert opened(split) is split
