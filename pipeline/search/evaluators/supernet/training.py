"""Trains weights that all members of a space share; resumes after a kill with the same result."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.data.base import Dataset
from pipeline.data.tensors import to_tensor
from pipeline.distill.augment import augment
from pipeline.distill.divergence import TrainingDiverged
from pipeline.distill.training import save_atomically
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.search.evaluators.supernet.weights import SharedWeights

Losses = Callable[[Tensor, Tensor, random.Random], Iterator[Tensor]]
"""Of a batch ``(N, C, H, W)``, the rows of the train split and a source of chance: losses that are minimised
one after the other, each alone on the tensors that it reaches, before the weights change once."""

OnEpoch = Callable[[int, int], None]


def train(
    weights: SharedWeights,
    losses: Losses,
    dataset: Dataset,
    settings: SupernetSettings,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Train the weights in place and freeze them; gives the mean loss of each epoch.

    Each epoch draws from ``seed`` and its number alone. Tensors that no member of a batch uses stay as they
    are: their moments do not age either.

    Args:
        weights: what is trained; more tensors may come to be while losses are computed.
        losses: what is minimised.
        dataset: its train split is used.
        settings: how long, and how.
        seed: of order, augmentation and members.
        checkpoint: file written after every epoch and continued from when it exists.
        on_epoch: called with epochs done, and all of them.

    Raises:
        TrainingDiverged: the loss is not finite.
    """
    train_split = dataset.train
    if settings.train_limit is not None:
        train_split = train_split.first(settings.train_limit)
    count = len(train_split)
    # A batch of one would break BatchNorm, so a last batch of one is left out.
    batches = max(1, math.ceil((count - 1) / settings.batch_size))
    optimizer = _Adam(weights)
    history = optimizer.load(checkpoint) if checkpoint is not None and checkpoint.exists() else []
    with ExitStack() as stack:
        if settings.threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(settings.threads)
        while len(history) < settings.epochs:
            epoch = len(history)
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            chance = random.Random(f"{seed} {epoch}")
            order = torch.randperm(count, generator=generator)
            found = []
            for step, rows in enumerate(torch.split(order, settings.batch_size)[:batches]):
                done = (epoch + step / batches) / settings.epochs
                images = to_tensor(train_split.images[rows.numpy()], dataset.preprocessing)
                images = augment(images, settings.augment, generator)
                images = images.contiguous(memory_format=torch.channels_last)
                for loss in losses(images, rows, chance):
                    if loss.requires_grad:  # A stage may have nothing to train.
                        loss.backward()  # type: ignore[no-untyped-call]
                    found.append(float(loss.detach()))
                optimizer.step(settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done)))
            history.append(math.fsum(found) / len(found))
            if not math.isfinite(history[-1]):
                raise TrainingDiverged(f"the training loss became {history[-1]} in epoch {epoch + 1}")
            if checkpoint is not None:
                optimizer.save(checkpoint, history)
            if on_epoch is not None:
                on_epoch(len(history), settings.epochs)
    weights.freeze()
    return history


class _Adam:
    """torch's Adam over tensors that come to be one by one; its state is kept by their names."""

    def __init__(self, weights: SharedWeights) -> None:
        self._weights = weights
        self._optimizers: dict[str, torch.optim.Adam] = {}

    def step(self, learning_rate: float) -> None:
        """Change the tensors that have gradients."""
        for name, tensor in self._weights.tensors.items():
            if tensor.grad is not None:
                optimizer = self._of(name)
                optimizer.param_groups[0]["lr"] = learning_rate
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

    def save(self, path: Path, history: list[float]) -> None:
        """Write tensors and moments."""
        tensors = {name: tensor.detach() for name, tensor in self._weights.tensors.items()}
        moments = {name: each.state_dict()["state"] for name, each in self._optimizers.items()}
        save_atomically({"tensors": tensors, "moments": moments, "history": history}, path)

    def load(self, path: Path) -> list[float]:
        """Take them back; gives the history."""
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        self._weights.load(state["tensors"])
        for name, moments in state["moments"].items():
            optimizer = self._of(name)
            optimizer.load_state_dict(
                {"state": moments, "param_groups": optimizer.state_dict()["param_groups"]}
            )
        history: list[float] = state["history"]
        return history

    def _of(self, name: str) -> torch.optim.Adam:
        if name not in self._optimizers:
            self._optimizers[name] = torch.optim.Adam([self._weights.tensors[name]])
        return self._optimizers[name]
