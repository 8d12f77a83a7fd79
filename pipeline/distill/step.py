"""One step of a training: gradients of a batch, in as many parts as the memory of the device asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.distill.batches import Batch
from pipeline.distill.crash_marker import Tell
from pipeline.distill.objective import Objective
from pipeline.distill.settings import Precision
from pipeline.distill.team import ALONE, Team

_FEWEST = 2
"""Images of a part: one would break BatchNorm."""
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingStep:
    """Takes the steps of a training.

    Where a GPU has not the memory for a batch, it is computed in two parts, or four, and so on. Their
    gradients are added, so that a step is still of the whole batch; only BatchNorm sees smaller ones.

    Args:
        model: is trained.
        objective: what is minimised.
        optimizer: of both.
        device: where they are.
        precision: of what the model and its teacher compute; weights, and all losses, are in float32.
        tell: called with a line when batches are computed in parts.
        team: the processes that share out each batch.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        precision: Precision,
        tell: Tell,
        team: Team = ALONE,
    ) -> None:
        self._loss = team.wrapped(_LossOfBatch(model, objective, device.type, _TYPES.get(precision)))
        self._optimizer, self._device, self._tell, self._team = optimizer, device, tell, team
        self._parts = 1
        # Gradients below the smallest number of fp16 would vanish; of bf16 they do not.
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def __call__(self, batch: Batch, rate: float) -> float:
        """One step at a learning rate; returns the loss of the batch, or of what this process has of it.

        Raises:
            torch.OutOfMemoryError: two images are too many for the device.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._gradients(batch.at(self._team.part(len(batch.index))), len(batch.index))
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss

    def state(self) -> dict[str, Any]:
        """What the next steps depend on: how far gradients are scaled, in fp16."""
        return self._scaler.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` gave; an empty one says nothing."""
        if state:
            self._scaler.load_state_dict(state)

    def _gradients(self, batch: Batch, whole: int) -> float:
        while True:
            self._optimizer.zero_grad(set_to_none=True)
            try:
                return sum(
                    self._backward(batch.at(part), whole) for part in _split(len(batch.index), self._parts)
                )
            except torch.OutOfMemoryError:
                # Others of a team would wait for gradients that they have already.
                if self._parts >= len(batch.index) // _FEWEST or self._team.size > 1:
                    raise
            torch.cuda.empty_cache()
            self._parts = min(2 * self._parts, len(batch.index) // _FEWEST)
            self._tell(
                f"the device has not the memory for {len(batch.index)} images at a time; batches are computed"
                f" in {self._parts} parts"
            )

    def _backward(self, batch: Batch, whole: int) -> float:
        """Add the gradients of a part of a batch of ``whole`` images; returns its share of the loss.

        Gradients of a team are averaged, so its parts count as often as there are processes.
        """
        images = batch.images.to(self._device, memory_format=torch.channels_last)
        loss = self._loss(images, batch.index, batch.labels.to(self._device))
        loss = loss * (self._team.size * len(batch.index) / whole)
        self._scaler.scale(loss).backward()
        return float(loss.detach())


class _LossOfBatch(nn.Module):
    """Network and objective as one, which a team needs to average the gradients of both."""

    def __init__(self, model: nn.Module, objective: Objective, device: str, kind: torch.dtype | None) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self._device, self._type = device, kind

    def forward(self, images: Tensor, index: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(self._device, self._type, enabled=self._type is not None):
            outputs = self.model(images)
            members = self.objective.members(images, index)
        loss: Tensor = self.objective(outputs.float(), members, labels)
        return loss


def _split(count: int, parts: int) -> Sequence[Tensor]:
    """Places in a batch, part by part."""
    return torch.arange(count).tensor_split(max(1, min(parts, count // _FEWEST)))
