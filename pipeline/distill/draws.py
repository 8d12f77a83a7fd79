"""What layers such as dropout draw while a network is trained; they draw from torch's own generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from devices.digests import value_digest


@contextmanager
def drawing_from(*numbers: int) -> Iterator[None]:
    """Let what is drawn inside follow from numbers, and nothing outside from what is drawn inside.

    Args:
        numbers: such as a seed and the number of an epoch, so that a training that goes on after a kill draws
            what it would have drawn.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(value_digest(list(numbers))[:8], 16))
        yield
