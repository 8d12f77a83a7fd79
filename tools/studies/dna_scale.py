"""Sizes of the DNA study, its space, its teacher, and the networks that are drawn."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import numpy as np
from torch import nn

from pipeline.data.base import Dataset
from pipeline.distill.settings import DistillationSettings, TrainingSettings
from pipeline.methods.dna.settings import DnaSettings
from pipeline.spaces.base import Architecture
from pipeline.spaces.cost import network_cost
from pipeline.spaces.dna.config import CellConfig, DnaBlockConfig, DnaSpaceConfig
from pipeline.spaces.dna.space import BlockChoice, DnaSpace
from pipeline.teachers.convnet import ConvNet

NEAR = 0.03


@dataclass(frozen=True)
class SposSettings:
    """How the supernet is trained, and how many train images give BatchNorm's statistics of a network."""

    epochs: int
    calibration_images: int
    batch_size: int = 64
    learning_rate: float = 0.05


@dataclass(frozen=True)
class Scale:
    """Sizes of the study.

    Attributes:
        train: images for training and validation.
        test: images on which trained networks are compared.
        networks: drawn in all.
        bands: of MACs, with as many networks each.
        rivals: random networks that the one that DNA finds is compared with.
        teacher, alone, proxy: trainings of the teacher, of networks alone, and of the short distillation.
        dna, spos: trainings of the supernets; at the scale "small" they take about as long as each other.
    """

    train: int
    test: int
    networks: int
    bands: int
    rivals: int
    teacher: TrainingSettings
    alone: TrainingSettings
    proxy: DistillationSettings
    dna: DnaSettings
    spos: SposSettings


def training(epochs: int) -> TrainingSettings:
    return TrainingSettings(epochs=epochs, patience=epochs, augment="crop-flip")


SCALES = {
    "smoke": Scale(
        1_000,
        500,
        6,
        2,
        2,
        training(2),
        training(2),
        DistillationSettings(epochs=1),
        DnaSettings(epochs=1, score_images=40, calibration_images=40),
        SposSettings(epochs=1, calibration_images=40),
    ),
    "small": Scale(
        10_000,
        10_000,
        30,
        5,
        10,
        training(12),
        training(6),
        DistillationSettings(epochs=1),
        DnaSettings(epochs=8, score_images=400, calibration_images=256),
        SposSettings(epochs=18, calibration_images=256),
    ),
    "large": Scale(
        60_000,
        10_000,
        40,
        5,
        20,
        training(30),
        training(30),
        DistillationSettings(epochs=3),
        DnaSettings(epochs=20),
        SposSettings(epochs=100, calibration_images=256),
    ),
}


def space_for(dataset: Dataset) -> DnaSpace:
    """Three blocks of 1 to 3 layers, the deeper the wider, with 4 operations.

    The cells are far apart, and so are accuracies: networks that differ less than two trainings of one do
    cannot be ranked.
    """

    def block(widths: tuple[int, int, int], stride: int) -> DnaBlockConfig:
        cells = tuple(CellConfig(depth=depth, width=width) for depth, width in enumerate(widths, start=1))
        return DnaBlockConfig(cells=cells, stride=stride, kernels=(3, 5), expansions=(2, 4))

    config = DnaSpaceConfig(
        stem_width=8,
        stem_stride=2,
        head_width=64,
        blocks=(block((4, 8, 12), 1), block((6, 12, 20), 2), block((10, 20, 32), 2)),
    )
    return DnaSpace(config, dataset.input_shape, len(dataset.classes))


def teacher_network(dataset: Dataset) -> nn.Module:
    """A ConvNet whose stem halves the images, so that one core suffices."""
    network = ConvNet(dataset.input_shape[0], len(dataset.classes), width=16, depth=2)
    stem = network.stem[0]
    assert isinstance(stem, nn.Conv2d)
    stem.stride = (2, 2)
    return network


def macs_of(space: DnaSpace, architecture: Architecture) -> int:
    return network_cost(space.blocks(architecture)).macs


def draw(space: DnaSpace, networks: int, bands: int, seed: int) -> list[list[Architecture]]:
    """As many distinct architectures from each band of MACs; the bands hold equal shares of the space."""
    generator = random.Random(seed)
    drawn = {space.sample(generator): None for _ in range(200 * networks)}
    ordered = sorted(drawn, key=lambda each: macs_of(space, each))
    parts = np.array_split(np.arange(len(ordered)), bands)
    return [[ordered[i] for i in generator.sample(list(part), networks // bands)] for part in parts]


def uniform(space: DnaSpace) -> list[Architecture]:
    """The architectures with the same place of cell and the same operation everywhere."""
    found = []
    for cell, operation in itertools.product(range(len(space.config.blocks[0].cells)), space.operations(0)):
        cells = [block.cells[cell] for block in space.config.blocks]
        found.append(space.architecture([BlockChoice(each, (operation,) * each.depth) for each in cells]))
    return found


def near(space: DnaSpace, macs: float, count: int, seed: int) -> list[Architecture]:
    """Distinct random architectures with these MACs, or up to ``NEAR`` fewer or more."""
    generator = random.Random(seed)
    drawn: dict[Architecture, None] = {}
    while len(drawn) < count:
        architecture = space.sample(generator)
        if abs(macs_of(space, architecture) / macs - 1) <= NEAR:
            drawn[architecture] = None
    return list(drawn)
