"""Trains the supernets of one block to reproduce the teacher's features (1911.13053, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.data.base import Preprocessing, Split
from pipeline.data.tensors import to_tensor
from pipeline.distill.augment import augment
from pipeline.distill.training import training_device
from pipeline.methods.dna.checkpoint import load_checkpoint, save_checkpoint
from pipeline.methods.dna.errors import DnaError
from pipeline.methods.dna.features import BlockFeatures
from pipeline.methods.dna.settings import DnaSettings
from pipeline.methods.dna.supernet import Supernet


@dataclass(frozen=True)
class BlockTraining:
    """How one block is trained.

    Attributes:
        settings: of all blocks.
        learning_rate: of this block in the first epoch.
        seed: of order, augmentation and paths.
    """

    settings: DnaSettings
    learning_rate: float
    seed: int

    def run(
        self,
        cells: Sequence[Supernet],
        features: BlockFeatures,
        train: Split,
        preprocessing: Preprocessing,
        *,
        checkpoint: Path | None = None,
    ) -> list[float]:
        """Train the supernets in place; returns the mean loss of every epoch.

        In every step each cell runs one path, drawn uniformly, and only its weights change. The loss is the
        squared difference to the teacher's features, averaged over their elements. The cells share the
        features and nothing else. Each epoch draws from ``seed`` and its number, so a training that was
        killed and goes on from ``checkpoint`` gives the same weights as one that was not.

        Args:
            cells: supernets; they end on the CPU.
            features: of the block.
            train: images; labels are not looked at.
            preprocessing: of the images.
            checkpoint: file that is written after every epoch, and continued from when it exists.

        Raises:
            DnaError: the loss is not finite.
            WorkFolderError: the checkpoint is damaged.
        """
        together = nn.ModuleList(cells).to(training_device())
        optimizer = self._optimizer(together)
        losses: list[float] = []
        if checkpoint is not None and checkpoint.exists():
            losses = load_checkpoint(checkpoint, together, optimizer)
        while len(losses) < self.settings.epochs:
            epoch = len(losses)
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * self.settings.learning_rate_decay**epoch
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            batches = map(features, self._images(train, preprocessing, generator))
            losses.append(_pass(cells, optimizer, batches, generator))
            if not math.isfinite(losses[-1]):
                raise DnaError(
                    f"training block {features.block + 1} diverged",
                    why=f"its loss became {losses[-1]} in epoch {epoch + 1}",
                    fix="lower learning_rate and edge_learning_rate",
                )
            if checkpoint is not None:
                save_checkpoint(checkpoint, together, optimizer, losses)
        together.to("cpu").eval()
        return losses

    def _optimizer(self, cells: nn.Module) -> torch.optim.Adam:
        matrices = [weight for weight in cells.parameters() if weight.ndim > 1]
        vectors = [weight for weight in cells.parameters() if weight.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.Adam(groups, lr=self.learning_rate)

    def _images(
        self, train: Split, preprocessing: Preprocessing, generator: torch.Generator
    ) -> Iterator[Tensor]:
        order = torch.randperm(len(train), generator=generator)
        for index in torch.split(order, self.settings.batch_size):
            # A batch of one would break BatchNorm.
            if len(index) > 1:
                images = to_tensor(train.images[index.numpy()], preprocessing)
                yield augment(images, self.settings.augment, generator).to(training_device())


def _pass(
    cells: Sequence[Supernet],
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    generator: torch.Generator,
) -> float:
    """One epoch; returns the mean loss of steps and cells."""
    losses = []
    for cell in cells:
        cell.train()
    for inputs, targets in batches:
        # Weights outside the paths get no gradient, so that Adam leaves them alone.
        optimizer.zero_grad(set_to_none=True)
        for cell in cells:
            loss = functional.mse_loss(cell(inputs, cell.draw(generator)), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(float(loss.detach()))
        optimizer.step()
    return math.fsum(losses) / len(losses)
