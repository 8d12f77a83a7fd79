"""Probabilities of several networks."""

from __future__ import annotations

import math

from torch import Tensor


def mean_log_probabilities(members: Tensor) -> Tensor:
    """``(members, ...)`` logarithms of probabilities to the logarithm of their mean."""
    return members[0] if len(members) == 1 else members.logsumexp(dim=0) - math.log(len(members))
