"""Hints: the teacher's feature maps themselves (FitNets, Romero et al., 1412.6550, section 2.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pipeline.distill.feature_maps import FeatureMap
from pipeline.distill.losses.base import PairLoss


class FitNetLoss(PairLoss):
    """``mean (r(S) - T)^2`` over all elements of a pair of maps, and the mean over the pairs.

    The connector r is a 1x1 convolution from the student's width to the teacher's. The paper's hints come
    before the other training; here they are a term of it.
    """

    def connect(self, student: tuple[FeatureMap, ...], teacher: tuple[FeatureMap, ...]) -> None:
        """Choose the pairs, and make a connector for each.

        Raises:
            TeacherError: a layer has no feature map, or no two maps have the same size.
        """
        super().connect(student, teacher)
        self._connectors = nn.ModuleList(
            nn.Conv2d(pair.student.channels, pair.teacher.channels, 1) for pair in self.pairs
        )

    def compare(self, number: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean squared difference behind the connector."""
        return functional.mse_loss(self._connectors[number](student), teacher)
