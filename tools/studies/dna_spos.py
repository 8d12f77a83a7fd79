"""A single-path supernet of whole networks of a DNA space, trained with labels (SPOS, 1904.00420)."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import torch
from dna_scale import SposSettings
from torch import Tensor, nn
from torch.nn import functional

from pipeline.data.base import Dataset
from pipeline.data.tensors import batches_of, to_tensor
from pipeline.distill.augment import augment
from pipeline.distill.settings import TrainingSettings
from pipeline.distill.training import accuracy, learning_rate_at, save_atomically
from pipeline.methods.dna.scoring import calibrate
from pipeline.spaces.base import Architecture
from pipeline.spaces.dna.config import CellConfig
from pipeline.spaces.dna.space import DnaSpace, LayerOperation


class SposEvaluator:
    """Scores a network by its accuracy on the validation slice with the supernet's weights."""

    def __init__(self, space: DnaSpace, dataset: Dataset, settings: SposSettings, seed: int) -> None:
        self._space, self._dataset, self._settings, self._seed = space, dataset, settings, seed
        self._modules = nn.ModuleDict()
        torch.manual_seed(seed)
        self._modules["stem"] = space.build_block(space.stem())
        for number, config in enumerate(space.config.blocks):
            for cell, operation in itertools.product(config.cells, space.operations(number)):
                for layer in range(cell.depth):
                    for width in (cell.width,) if layer else space.widths_into(number):
                        block = space.layer(number, width, cell.width, layer, operation)
                        self._modules[_key(number, cell, layer, width, operation)] = space.build_block(block)
        for width in space.widths_into(len(space.config.blocks)):
            self._modules[f"head-{width}"] = space.build_block(space.head(width))

    def train(self, checkpoint: Path) -> None:
        """One uniformly drawn network per step; goes on from the checkpoint."""
        settings, data = self._settings, self._dataset
        schedule = TrainingSettings(epochs=settings.epochs, learning_rate=settings.learning_rate)
        optimizer = torch.optim.SGD(
            self._modules.parameters(), settings.learning_rate, 0.9, weight_decay=5e-4, nesterov=True
        )
        first = 0
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)
            self._modules.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            first = state["epochs"]
        labels = torch.from_numpy(data.train.labels)
        batches = -(-(len(labels) - 1) // settings.batch_size)
        for epoch in range(first, settings.epochs):
            draws = random.Random(f"{self._seed} {epoch}")
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            order = torch.randperm(len(labels), generator=generator)
            self._modules.train()
            for step, index in enumerate(torch.split(order, settings.batch_size)[:batches], epoch * batches):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate_at(step, settings.epochs * batches, schedule)
                images = to_tensor(data.train.images[index.numpy()], data.preprocessing)
                network = nn.Sequential(*self._path(self._space.sample(draws)))
                logits: Tensor = network(augment(images, "crop-flip", generator))
                optimizer.zero_grad(set_to_none=True)
                functional.cross_entropy(logits, labels[index]).backward()
                optimizer.step()
            save_atomically(
                {
                    "model": self._modules.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "epochs": epoch + 1,
                },
                checkpoint,
            )

    def evaluate(self, architecture: Architecture) -> float:
        """Accuracy after BatchNorm is recalibrated along the network."""
        data = self._dataset
        path = self._path(architecture)
        count = min(len(data.train), self._settings.calibration_images)
        images = tuple(batches_of(data.train.take(np.arange(count)), data.preprocessing))
        calibrate(path, images)
        return accuracy(nn.Sequential(*path), data.validation, data.preprocessing)

    def _path(self, architecture: Architecture) -> list[nn.Module]:
        names, width = ["stem"], self._space.config.stem_width
        for number, (cell, operations) in enumerate(self._space.block_choices(architecture)):
            for layer, operation in enumerate(operations):
                names.append(_key(number, cell, layer, width, operation))
                width = cell.width
        return [self._modules[name] for name in (*names, f"head-{width}")]


def _key(block: int, cell: CellConfig, layer: int, in_width: int, operation: LayerOperation) -> str:
    """The name of a layer's weights: cells share none."""
    return f"{block}-{cell.name}-{layer}-{in_width}-{operation.name}"
