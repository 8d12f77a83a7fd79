"""Attention transfer: where the activations are strong (Zagoruyko and Komodakis, 1612.03928, section 3.1)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from pipeline.distill.losses.base import PairLoss


class AttentionTransferLoss(PairLoss):
    """``mean (Q(S) / |Q(S)| - Q(T) / |Q(T)|)^2`` over the pixels of a pair, and the mean over the pairs.

    Q is the sum of the squared activations over the channels, as a vector of pixels with norm ``|.|``. No
    connector is needed. The released code averages over pixels too, where the paper's formula sums.
    """

    def compare(self, number: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean squared difference of the attention maps."""
        return functional.mse_loss(_attention(student), _attention(teacher))


def _attention(features: Tensor) -> Tensor:
    return functional.normalize(features.square().sum(dim=1).flatten(1), dim=1)
