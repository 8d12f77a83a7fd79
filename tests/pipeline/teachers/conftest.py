from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data import DataConfig, Dataset
from pipeline.data.loading import load


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as these are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Sixty grey 8x8 images of three classes that differ in brightness."""
    generator = np.random.default_rng(0)
    labels = np.tile(np.arange(3), 20)
    images = (80 * labels[:, None, None] + generator.integers(0, 60, (60, 8, 8))).astype(np.uint8)
    np.savez(tmp_path / "data.npz", train_x=images, train_y=labels, test_x=images[:12], test_y=labels[:12])
    return load(DataConfig(kind="npz", path=tmp_path / "data.npz"), seed=0)
