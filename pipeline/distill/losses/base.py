"""What a loss is given in one step of a training, and what it has to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from pipeline.distill.feature_maps import FeatureMap, MapPair, paired


@dataclass(frozen=True, eq=False)
class Step:
    """One batch, as student and teacher see it. The teacher is in eval mode; no gradient flows into it.

    Attributes:
        labels: ``(N,)`` int64.
        student_logits: ``(N, classes)``.
        teacher_logits: ``(N, classes)``; empty where no loss needs the teacher.
        student_features: ``(N, C, H, W)`` by module name, of the layers that a loss watches.
        teacher_features: the same of the teacher.
    """

    labels: Tensor
    student_logits: Tensor
    teacher_logits: Tensor
    student_features: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, Tensor] = field(default_factory=dict)


class Loss(nn.Module, ABC):
    """One term of what a training minimises. Its parameters, if it has any, are trained with the student."""

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """A scalar, averaged over the batch."""


class FeatureLoss(Loss):
    """A loss on feature maps of layers that it names once it has seen both networks."""

    @property
    @abstractmethod
    def student_layers(self) -> tuple[str, ...]:
        """Names of the student's modules whose maps it is to be given."""

    @property
    @abstractmethod
    def teacher_layers(self) -> tuple[str, ...]:
        """The same of the teacher."""

    @abstractmethod
    def connect(self, student: tuple[FeatureMap, ...], teacher: tuple[FeatureMap, ...]) -> None:
        """Choose layers among the maps of both networks, and make what connects them.

        Raises:
            TeacherError: a layer has no feature map, or no two maps have the same size.
        """


class PairLoss(FeatureLoss):
    """A loss on pairs of feature maps of one spatial size.

    Args:
        student_layers: names of the student's modules; without, the last map of each spatial size.
        teacher_layers: as many of the teacher's.
    """

    pairs: tuple[MapPair, ...] = ()

    def __init__(
        self, student_layers: tuple[str, ...] | None = None, teacher_layers: tuple[str, ...] | None = None
    ) -> None:
        super().__init__()
        self._layers = (student_layers, teacher_layers)

    @property
    def student_layers(self) -> tuple[str, ...]:
        """The student's halves of the pairs."""
        return tuple(pair.student.name for pair in self.pairs)

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """The teacher's."""
        return tuple(pair.teacher.name for pair in self.pairs)

    def connect(self, student: tuple[FeatureMap, ...], teacher: tuple[FeatureMap, ...]) -> None:
        """Choose pairs among the maps of both networks.

        Raises:
            TeacherError: a layer has no feature map, or no two maps have the same size.
        """
        self.pairs = paired(student, teacher, *self._layers)

    def forward(self, step: Step) -> Tensor:
        """The mean over the pairs."""
        each = [
            self.compare(
                number, step.student_features[pair.student.name], step.teacher_features[pair.teacher.name]
            )
            for number, pair in enumerate(self.pairs)
        ]
        total: Tensor = sum(each[1:], each[0])
        return total / len(each)

    @abstractmethod
    def compare(self, number: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of pair ``number``: ``(N, C_S, H, W)`` against ``(N, C_T, H, W)``, a scalar."""
