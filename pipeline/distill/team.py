"""The processes that train one network together, as each of them sees it (DistributedDataParallel)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass(frozen=True)
class Team:
    """One process of several, or the only one.

    Attributes:
        rank: of this process, counted from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one writes checkpoints and says how it goes."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """The places in a batch of ``count`` that are this process's."""
        return slice(self.rank, count, self.size)

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The same, whose gradients become the mean over all processes."""
        if self.size == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        # A path through shared weights leaves most of them unused.
        return DistributedDataParallel(module, find_unused_parameters=True)

    def mean(self, value: float) -> float:
        """Of what each process has."""
        if self.size == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64, device=_device())
        torch.distributed.all_reduce(found)
        return float(found) / self.size

    def of_leader(self, value: float) -> float:
        """What the first process has: all have to decide alike, and their BatchNorms saw other images."""
        if self.size == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64, device=_device())
        torch.distributed.broadcast(found, 0)
        return float(found)


ALONE = Team()


@contextmanager
def joined(rank: int, size: int, meeting: Path) -> Iterator[Team]:
    """Meet the others while the block runs; on GPUs each process has one of its own.

    Args:
        rank: of this process.
        size: how many are to come.
        meeting: a file that all of them can open and that is not there yet.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    torch.distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        init_method=meeting.absolute().as_uri(),
        rank=rank,
        world_size=size,
    )
    try:
        yield Team(rank, size)
    finally:
        torch.distributed.destroy_process_group()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
