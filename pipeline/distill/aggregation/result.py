"""What a search for mixtures found; free of torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MixtureEpoch:
    """One epoch of the search of one group.

    Attributes:
        train_loss: mean of what student and connectors minimise, over their half of the images.
        shares: of the teacher's maps at the end of the epoch.
    """

    train_loss: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class FoundMixture:
    """The mixture of one layer group.

    Attributes:
        size: height and width of the maps.
        student_layer: name of the student's module that ends the group.
        teacher_layers: names of the teacher's modules, in the order in which they run.
        shares: one for each of these; at least 0, and 1 together.
        slopes: length of the gradient on the mixture's logits after the warm-up, of the path from teacher to
            student and of the other one; 0 where a path is not searched with. Empty for a group of one map.
        history: epoch by epoch; empty for a group of one map, where nothing is searched.
    """

    size: tuple[int, int]
    student_layer: str
    teacher_layers: tuple[str, ...]
    shares: tuple[float, ...]
    slopes: tuple[float, ...] = ()
    history: tuple[MixtureEpoch, ...] = ()

    @property
    def depth(self) -> float | None:
        """Where the shares lie on average: 0 is the first map of the group, 1 the last; none of one map."""
        last = len(self.shares) - 1
        return sum(place * share for place, share in enumerate(self.shares)) / last if last else None
