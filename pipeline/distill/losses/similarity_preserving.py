"""Relations between the images of a batch (similarity-preserving distillation, 1907.09682, section 3)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from pipeline.distill.losses.base import PairLoss


class SimilarityPreservingLoss(PairLoss):
    """``|G(S) - G(T)|^2 / N^2`` with the Frobenius norm, averaged over the pairs.

    G is the matrix ``F F'`` of a batch's flattened maps F, ``(N, C H W)``, with rows of norm 1: how similar
    the images of the batch are to each other. No connector is needed.
    """

    def compare(self, number: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean squared difference of the similarities."""
        return functional.mse_loss(_similarity(student), _similarity(teacher))


def _similarity(features: Tensor) -> Tensor:
    rows = features.flatten(1)
    return functional.normalize(rows @ rows.T, dim=1)
