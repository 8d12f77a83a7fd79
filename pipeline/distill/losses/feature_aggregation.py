"""Feature aggregation: mixtures of the teacher's maps (DFA, Guan et al., 2008.00506, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.distill.feature_groups import LayerGroup, layer_groups
from pipeline.distill.feature_maps import FeatureMap
from pipeline.distill.losses.base import FeatureLoss, Step
from pipeline.distill.losses.mixtures import Mixture


class FeatureAggregationLoss(FeatureLoss):
    """``sum_i mean (F_i(S_i) - A_i)^2`` over the layer groups i, the mean over all elements of a map.

    A group has the layers of one spatial size. ``A_i = sum_j alpha_ij T_ij`` mixes the teacher's maps of the
    group with shares that are at least 0 and sum to 1; S_i is the student's last map of the group, and the
    connector F_i a 1x1 convolution from its width to the teacher's, trained with the student. Shares that
    are 1 for the last map and 0 for the others give ordinary distillation of the last layers.

    The teacher's maps are standardised by the mean and standard deviation of each over the first train
    images, which stay what they are during a training. The paper's norm sums over the elements; with the
    mean, groups of all sizes count alike.

    Args:
        mixture: gives the shares of a group.
    """

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self._mixture = mixture
        self.groups: tuple[LayerGroup, ...] = ()
        self.shares: tuple[tuple[float, ...], ...] = ()

    @property
    def student_layers(self) -> tuple[str, ...]:
        """Where the student's groups end."""
        return tuple(group.student.name for group in self.groups)

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """Every map of every group."""
        return tuple(each.name for group in self.groups for each in group.teacher)

    def connect(self, student: tuple[FeatureMap, ...], teacher: tuple[FeatureMap, ...]) -> None:
        """Find the groups and their shares, and make a connector for each.

        Raises:
            TeacherError: there is no common size, or the shares are of other groups.
        """
        self.groups = layer_groups(student, teacher)
        self.shares = self._mixture(self.groups)
        self._connectors = nn.ModuleList(
            nn.Conv2d(group.student.channels, group.channels, 1) for group in self.groups
        )

    def forward(self, step: Step) -> Tensor:
        """The sum over the groups."""
        terms = [
            functional.mse_loss(
                connector(step.student_features[group.student.name]),
                group.mixture(shares, step.teacher_features),
            )
            for group, shares, connector in zip(self.groups, self.shares, self._connectors, strict=True)
        ]
        return torch.stack(terms).sum()
