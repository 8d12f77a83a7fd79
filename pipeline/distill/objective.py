"""What a training minimises: a weighted sum of losses. The training knows none of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from pipeline.distill.ensemble import members_maps
from pipeline.distill.feature_maps import feature_maps, watched
from pipeline.distill.losses.base import FeatureLoss, Loss, Step
from pipeline.distill.losses.settings import LabelsSettings, LossSettings
from pipeline.distill.targets import SoftTargets
from pipeline.tasks import SINGLE_LABEL, Task

_ENOUGH_FOR_SHAPES = 2


class Objective(nn.Module):
    """The weighted losses of one training; its parameters are those of the losses' connectors.

    Args:
        losses: what is minimised; without a teacher, that of the labels takes their place.
        targets: what the teacher says to each batch.
        task: says what labels and outputs mean.
    """

    def __init__(
        self, losses: Sequence[LossSettings], targets: SoftTargets | None, task: Task = SINGLE_LABEL
    ) -> None:
        super().__init__()
        self._task = task
        chosen = losses if targets is not None else (LabelsSettings(),)
        self.losses = nn.ModuleList(each.make() for each in chosen)
        self._weights = tuple(each.weight for each in chosen)
        self._targets = targets if any(each.needs_teacher for each in chosen) else None
        self._student_features: Mapping[str, Tensor] = {}
        self._teacher_features: Mapping[str, Tensor] = {}

    @contextmanager
    def watching(self, student: nn.Module, images: Tensor, *, seed: int) -> Iterator[None]:
        """Connect the losses with the layers they compare, and watch these while the block runs.

        Args:
            student: is trained; on the device of ``images``.
            images: some ``(N, C, H, W)`` of the training's, over which maps are described.
            seed: of the connectors' weights.

        Raises:
            TeacherError: student and teacher have no feature maps that belong together.
        """
        losses = [loss for loss in self.losses if isinstance(loss, FeatureLoss)]
        with ExitStack() as stack:
            if losses and self._targets is not None:
                teacher = self._targets.network().to(images.device)
                ours = feature_maps(student, images[:_ENOUGH_FOR_SHAPES])
                theirs = members_maps(teacher, images)
                with torch.random.fork_rng(devices=[]):
                    for loss in losses:
                        # A loss has the same connectors alone and beside others.
                        torch.manual_seed(seed)
                        loss.connect(ours, theirs)
                own = watched(student, [name for loss in losses for name in loss.student_layers])
                other = watched(teacher, [name for loss in losses for name in loss.teacher_layers])
                self._student_features = stack.enter_context(own)
                self._teacher_features = stack.enter_context(other)
            self.to(images.device)
            yield

    def members(self, images: Tensor, index: Tensor) -> Tensor:
        """What the teacher's members say to a batch, ``(members, N, classes)``; empty without a teacher.

        Args:
            images: ``(N, C, H, W)``, as the student saw them.
            index: ``(N,)``, their rows in the train split.
        """
        return images.new_empty(0) if self._targets is None else self._targets(images, index).float()

    def forward(self, logits: Tensor, members: Tensor, labels: Tensor) -> Tensor:
        """The weighted sum for one batch.

        Args:
            logits: ``(N, classes)``, what the student has just said to the images.
            members: what ``members`` gave for them.
            labels: as the task has them, on the device of ``logits``.
        """
        ours, theirs = (
            {name: each.float() for name, each in features.items()}
            for features in (self._student_features, self._teacher_features)
        )
        step = Step(labels, logits, members, ours, theirs, self._task)
        terms = [
            weight * self._term(loss, step) for weight, loss in zip(self._weights, self.losses, strict=True)
        ]
        total: Tensor = sum(terms[1:], terms[0])
        return total

    @staticmethod
    def _term(loss: nn.Module, step: Step) -> Tensor:
        assert isinstance(loss, Loss)
        return loss(step)  # type: ignore[no-any-return]
