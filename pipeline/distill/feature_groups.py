"""Layer groups: the maps of one spatial size, of teacher and student, and the teacher's as one mixture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.distill.feature_maps import FeatureMap
from pipeline.errors import TeacherError


@dataclass(frozen=True)
class LayerGroup:
    """All layers of one spatial size (DFA, 2008.00506, section 3.1).

    Attributes:
        student: its last map of that size, with which the student's group ends.
        teacher: the teacher's maps, all of one width, in the order in which they are computed; those of an
            ensemble member after member.
    """

    student: FeatureMap
    teacher: tuple[FeatureMap, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of all maps."""
        return self.student.size

    @property
    def channels(self) -> int:
        """Width of the teacher's maps."""
        return self.teacher[0].channels

    def mixture(self, shares: Sequence[float] | Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """``A = sum_j shares_j (T_j - mean_j) / std_j``, ``(N, channels, height, width)``.

        Every map is standardised by its own fixed statistics, over all channels together: the mixture would
        otherwise favour maps of small norm, and a channel that never fires stays silent.

        Args:
            shares: one for each of the teacher's maps.
            features: the teacher's maps of a batch, by their names.
        """
        terms = [
            share * ((features[each.name] - each.mean) / each.std)
            for share, each in zip(shares, self.teacher, strict=True)
        ]
        total: Tensor = sum(terms[1:], terms[0])
        return total


def layer_groups(student: Sequence[FeatureMap], teacher: Sequence[FeatureMap]) -> tuple[LayerGroup, ...]:
    """The groups that both networks have, in the student's order, of maps that are passages.

    A group takes the teacher's maps of the most frequent width, of equals the later: those are the ends of
    its blocks.

    Raises:
        TeacherError: there is no common spatial size.
    """
    ours = {each.size: each for each in student if each.passage}
    theirs: dict[tuple[int, int], list[FeatureMap]] = {}
    for each in teacher:
        if each.passage:
            theirs.setdefault(each.size, []).append(each)
    groups = tuple(
        LayerGroup(last, _of_one_width(theirs[size])) for size, last in ours.items() if size in theirs
    )
    if not groups:
        raise TeacherError(
            "teacher and student have no layer group of the same size",
            why="looked for maps that all later layers depend on alone; "
            f"the student's are {_sizes(ours)}, the teacher's {_sizes(theirs)}",
            fix="use a loss on logits, such as soft_targets, or a teacher that takes the images at their "
            "size; of an exported graph (kind 'pt2') no layer can be seen, use kind 'factory' with weights",
        )
    return groups


def _of_one_width(maps: Sequence[FeatureMap]) -> tuple[FeatureMap, ...]:
    counts = Counter(each.channels for each in reversed(maps))
    # Of equals, ``most_common`` gives what was counted first: the later width.
    ((width, _),) = counts.most_common(1)
    return tuple(each for each in maps if each.channels == width)


def _sizes(maps: Mapping[tuple[int, int], object]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in maps) or "none"
