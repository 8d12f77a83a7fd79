"""A small teacher with its data and space, and ways to run DNA on them in processes of their own."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.methods.dna.cutting import CutTeacher, cut_teacher
from pipeline.methods.dna.run import score_blocks
from pipeline.methods.dna.settings import DnaSettings
from pipeline.spaces.dna.config import CellConfig, DnaBlockConfig, DnaSpaceConfig
from pipeline.spaces.dna.space import DnaSpace
from pipeline.teachers.convnet import ConvNet
from pipeline.work.folder import WorkFolder

SHAPE = (1, 8, 8)
SETTINGS = DnaSettings(epochs=2, batch_size=16, score_share=0.2, calibration_images=20, score_images=20)


def dataset(count: int = 60) -> Dataset:
    """Noise of two classes: DNA looks at no labels."""
    generator = np.random.default_rng(0)

    def split(size: int) -> Split:
        images = generator.integers(0, 256, (size, 8, 8, 1), dtype=np.uint8)
        return Split(images, np.arange(size, dtype=np.int64) % 2)

    return Dataset(
        "noise", split(count), split(8), split(8), ("a", "b"), Preprocessing((0.5,), (0.3,)), "digest"
    )


def network(seed: int = 0) -> nn.Module:
    """A teacher with three stages."""
    torch.manual_seed(seed)
    return ConvNet(1, 2, width=4, depth=1)


def teacher() -> CutTeacher:
    return cut_teacher(network(), SHAPE)


def space() -> DnaSpace:
    """Three blocks of two cells; 2 operations."""
    cells = (CellConfig(depth=1, width=8), CellConfig(depth=2, width=4))
    blocks = [
        DnaBlockConfig(cells=cells, stride=stride, kernels=(3,), expansions=(1, 2)) for stride in (1, 2, 2)
    ]
    config = DnaSpaceConfig(stem_width=4, head_width=8, blocks=tuple(blocks))
    return DnaSpace(config, SHAPE, 2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    score_blocks(
        space(),
        teacher(),
        dataset(),
        SETTINGS.model_copy(update={"epochs": 6}),
        work=WorkFolder(Path(sys.argv[1])),
        seed=3,
    )
