"""The two paths between teacher and student at one layer group (DFA, 2008.00506, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.distill.feature_groups import LayerGroup


class Paths(NamedTuple):
    """Losses of one batch, both means: scalars."""

    teacher_to_student: Tensor
    student_to_teacher: Tensor


class Bridge(nn.Module):
    """Mixture ``A = sum_j alpha_j T_j``, ``alpha = softmax(beta)``, and the losses of both paths::

        L_TS = CE(y, rest of the student applied to F_t(A))     teacher to student
        L_ST = mean (F_s(S) - A)^2                              student to teacher

    S is the student's last map of the group, F_t and F_s are 1x1 convolutions from the teacher's width to the
    student's and back. What feeds the rest of the student must classify well, which rich, deep maps do; what
    the student is to imitate must be learnable, which shallow maps are: the paths pull beta apart.

    One pass through the student gives both: S is kept where the group ends, and F_t(A) goes on in its place.
    So the front of the student learns from L_ST alone, the rest from L_TS alone.

    Args:
        group: has maps of teacher and student.
        crosses: whether F_t(A) goes on; else S does, and ``teacher_to_student`` is ``CE(y, student(x))``.
    """

    def __init__(self, group: LayerGroup, *, crosses: bool = True) -> None:
        super().__init__()
        self._group, self._crosses = group, crosses
        self.beta = nn.Parameter(torch.zeros(len(group.teacher)))
        self.connectors = nn.ModuleDict(
            {
                "to_teacher": nn.Conv2d(group.student.channels, group.channels, 1),
                "to_student": nn.Conv2d(group.channels, group.student.channels, 1),
            }
        )

    def shares(self) -> Tensor:
        """alpha, ``(maps,)``: at least 0, and 1 together."""
        return torch.softmax(self.beta, dim=0)

    def forward(
        self, student: nn.Module, features: Mapping[str, Tensor], images: Tensor, labels: Tensor
    ) -> Paths:
        """Run the student once.

        Args:
            student: all of it; its module that ends the group is watched meanwhile.
            features: of the teacher for these images, by name.
            images: ``(N, C, H, W)``.
            labels: ``(N,)`` int64.
        """
        mixture = self._group.mixture(self.shares(), features)
        ends: list[Tensor] = []

        def cross(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
            ends.append(output)
            return self.connectors["to_student"](mixture) if self._crosses else None

        end = student.get_submodule(self._group.student.name)
        handle = end.register_forward_hook(cross)
        try:
            logits = student(images)
        finally:
            handle.remove()
        return Paths(
            functional.cross_entropy(logits, labels),
            functional.mse_loss(self.connectors["to_teacher"](ends[0]), mixture),
        )
