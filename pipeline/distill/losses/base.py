"""What a loss is given in one step of a training, and what it has to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional

from pipeline.distill.feature_maps import FeatureMap, MapPair, paired
from pipeline.tasks import SINGLE_LABEL, Task
from pipeline.tasks.probabilities import mean_log_probabilities


@dataclass(frozen=True, eq=False)
class Step:
    """One batch, as student and teacher see it. The teacher is in eval mode; no gradient flows into it.

    Attributes:
        labels: of the images, as the task has them: ``(N,)`` int64 of a single label.
        student_logits: ``(N, classes)``, or whatever the task's outputs are.
        member_logits: ``(members, N, classes)``, of each member of the teacher; a teacher that is one network
            has one. Empty where no loss needs the teacher.
        student_features: ``(N, C, H, W)`` by module name, of the layers that a loss watches.
        teacher_features: the same of the teacher.
        task: says what labels and outputs mean.
    """

    labels: Tensor
    student_logits: Tensor
    member_logits: Tensor
    student_features: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, Tensor] = field(default_factory=dict)
    task: Task = SINGLE_LABEL

    def teacher_log_probabilities(self, temperature: float) -> Tensor:
        """Logarithm of the mean over the members of their softened probabilities, ``(N, classes)``.

        The mean of ``KL(p_j || q)`` over the members j is ``KL(mean of p_j || q)`` plus a term without q, so
        a loss that compares with this mean has the gradient of the mean of the members' losses. A mean of
        logits has not.

        Args:
            temperature: by which the logits are divided before the softmax.
        """
        return mean_log_probabilities(functional.log_softmax(self.member_logits / temperature, dim=2))

    @property
    def teacher_logits(self) -> Tensor:
        """``(N, classes)``: a single network's own; of an ensemble the logarithm of its probabilities."""
        return self.member_logits[0] if len(self.member_logits) == 1 else self.teacher_log_probabilities(1.0)


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
