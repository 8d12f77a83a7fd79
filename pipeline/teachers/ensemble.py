"""How the members of an ensemble differ: what oracle distillation lives on; importing it imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.data.base import Dataset, Split

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.teachers.teacher import Teacher

SATURATED_BELOW = 0.05
"""Share of mixed train images below which an oracle loss is hardly more than ordinary distillation."""


@dataclass(frozen=True)
class EnsembleFigures:
    """Of two or more members, in shares of images.

    Attributes:
        agreement: of the validation images, those of which two members name the same class; the mean over
            all pairs of members.
        oracle_accuracy: of the validation images, those that at least one member gets right.
        all_right: of the train images as they are, without augmentation: every member is right.
        mixed: some members are right and some are wrong.
        none_right: no member is right.
    """

    agreement: float
    oracle_accuracy: float
    all_right: float
    mixed: float
    none_right: float

    @property
    def saturated(self) -> bool:
        """Whether the members are right and wrong together on nearly all train images."""
        return self.mixed < SATURATED_BELOW

    def lines(self) -> Iterator[str]:
        """The figures in words."""
        yield (
            f"two members agree on {self.agreement:.2%} of the validation images; at least one is right on "
            f"{self.oracle_accuracy:.2%}"
        )
        yield (
            f"train images: all members right {self.all_right:.2%}, some {self.mixed:.2%}, "
            f"none {self.none_right:.2%}"
        )
        if self.saturated:
            yield (
                f"the ensemble is saturated: with less than {SATURATED_BELOW:.0%} of the train images in "
                "dispute, an oracle loss is hardly more than ordinary distillation; train the members for "
                "fewer epochs, or use smaller ones"
            )


def figures_of(teacher: Teacher, dataset: Dataset) -> EnsembleFigures:
    """Compare the members on the validation and train images; each sees every image once."""
    import torch

    named = _classes_named(teacher, dataset, dataset.validation)
    right = named == torch.from_numpy(dataset.validation.labels)
    on_train = _classes_named(teacher, dataset, dataset.train) == torch.from_numpy(dataset.train.labels)
    pairs = [named[a] == named[b] for a, b in itertools.combinations(range(len(named)), 2)]
    every, some = on_train.all(dim=0), on_train.any(dim=0)
    return EnsembleFigures(
        _share(torch.stack(pairs)),
        _share(right.any(dim=0)),
        _share(every),
        _share(some & ~every),
        _share(~some),
    )


def joined_names(names: Sequence[str]) -> str:
    """The members' names in order, ``3 x NAME`` for three of one name in a row."""
    groups = [(name, len(list(group))) for name, group in itertools.groupby(names)]
    return " + ".join(name if count == 1 else f"{count} x {name}" for name, count in groups)


def _classes_named(teacher: Teacher, dataset: Dataset, split: Split) -> Tensor:
    """``(members, N)``, on the CPU."""
    import torch

    from pipeline.data.tensors import batches_of

    batches = batches_of(split, dataset.preprocessing)
    return torch.cat([teacher.member_logits(batch).argmax(dim=2).cpu() for batch in batches], dim=1)


def _share(each: Tensor) -> float:
    return float(each.double().mean())
