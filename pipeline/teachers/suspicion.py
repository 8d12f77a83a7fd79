"""Why a teacher that was trained elsewhere is wrong: its classes have another order, or it saw other images.

Whatever is suspected was tried: the teacher is right far more often that way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.data.base import Dataset, Split
from pipeline.tasks.chance import better_than_chance, majority_share
from pipeline.teachers.classes import written
from pipeline.teachers.config import TeacherConfig

if TYPE_CHECKING:
    from pipeline.teachers.teacher import AdaptedNetwork

_RARE = 1e-3
_GAIN = 0.1
_TRIED = 512
_SHOWN = 6
_FORMS: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = (
    ("between 0 and 1", (0.0,), (1.0,)),
    ("between -1 and 1", (0.5,), (0.5,)),
    ("normalised as for ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("between 0 and 255", (0.0,), (1 / 255,)),
)


@dataclass(frozen=True)
class Suspicion:
    """What seems to be wrong with a teacher.

    Attributes:
        cause: in words, with what it gets right otherwise.
        fix: the keys of the recipe that would put it right, or what else would.
    """

    cause: str
    fix: str


def suspicion_of(adapted: AdaptedNetwork, dataset: Dataset, predicted: NDArray[np.int64]) -> Suspicion | None:
    """What makes the teacher wrong on the validation images, if it can be found.

    Args:
        adapted: the teacher's network.
        dataset: its validation images are shown in other ways where the teacher is no better than chance.
        predicted: ``(N,)``, the classes that the teacher names on the validation images.
    """
    labels, classes = dataset.validation.labels, dataset.classes
    order = found_order(predicted, labels, len(classes))
    if order is not None:
        return _of_order(adapted, dataset, predicted, order)
    right = float((predicted == labels).mean())
    if better_than_chance(right, len(labels), majority_share(labels)):
        return None
    return _of_images(adapted, dataset)


def found_order(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> tuple[int, ...] | None:
    """For each class the one that is named in its place, if the classes seem to be permuted.

    The permutation is taken from half of the images, by the assignment that gets most of them right. It must
    hold on the other half: a tenth more of the images are right with it, which is far more than luck.
    """
    from scipy.stats import binomtest

    order = _assignment(predicted[::2], labels[::2], classes)
    expected, got = order[labels[1::2]], predicted[1::2]
    gained = int(((got == expected) & (got != labels[1::2])).sum())
    lost = int(((got != expected) & (got == labels[1::2])).sum())
    if gained - lost < _GAIN * len(got) or binomtest(gained, gained + lost, 0.5).pvalue > _RARE:
        return None
    return tuple(_assignment(predicted, labels, classes).tolist())


def _assignment(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    from scipy.optimize import linear_sum_assignment

    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (labels, predicted), 1)
    # Classes that are never named stay where they are.
    confusion += 0.5 * np.eye(classes)
    return np.asarray(linear_sum_assignment(confusion, maximize=True)[1], np.int64)


def _of_order(
    adapted: AdaptedNetwork, dataset: Dataset, predicted: NDArray[np.int64], order: Sequence[int]
) -> Suspicion:
    labels, classes = dataset.validation.labels, dataset.classes
    outputs = adapted.outputs or tuple((place,) for place in range(len(classes)))
    right, otherwise = (
        float((predicted == expected).mean()) for expected in (labels, np.array(order)[labels])
    )
    moved = [f"'{classes[named]}' for '{classes[true]}'" for true, named in enumerate(order) if named != true]
    more = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
    return Suspicion(
        f"its classes have another order: it says {', '.join(moved[:_SHOWN])}{more}; read like that it gets "
        f"{otherwise:.2%} of the validation slice right, and {right:.2%} as it is",
        "set in [[teacher]] "
        + written({name: outputs[place] for name, place in zip(classes, order, strict=True)}),
    )


def _of_images(adapted: AdaptedNetwork, dataset: Dataset) -> Suspicion | None:
    """The best of several ways to show images, if the teacher is better than chance with it."""
    from pipeline.distill.training import accuracy
    from pipeline.teachers.teacher import AdaptedNetwork

    some = Split(dataset.validation.images[:_TRIED], dataset.validation.labels[:_TRIED])
    share = majority_share(some.labels)
    tried = []
    for words, other in _other_forms(adapted.config, dataset.input_shape[0]):
        shown = AdaptedNetwork(adapted.network, other, dataset.preprocessing)
        shown.place, shown.gives_probabilities = adapted.place, adapted.gives_probabilities
        shown.take(adapted.outputs)
        tried.append((accuracy(shown, some, dataset.preprocessing), words, other))
    right, words, best = max(tried, key=lambda each: each[0], default=(0.0, "", adapted.config))
    # The best of several is more often better by luck.
    if not better_than_chance(right, len(some), share) or right < share + _GAIN:
        return None
    mean, std = list(best.mean or ()), [round(each, 9) for each in best.std or ()]
    order = ', channel_order = "bgr"' if best.channel_order == "bgr" else ""
    return Suspicion(
        f"its images were prepared in another way: shown them {words}, it gets {right:.2%} of {len(some)} "
        "validation images right",
        f"set in [[teacher]] mean = {mean}, std = {std}{order}",
    )


def _other_forms(config: TeacherConfig, channels: int) -> Iterator[tuple[str, TeacherConfig]]:
    channels = config.channels or channels
    for order, more in {"rgb": "", "bgr": ", blue first"}.items():
        for words, mean, std in _FORMS:
            if len(mean) in (1, channels) and (order == "rgb" or channels == 3):
                form = {"mean": mean, "std": std, "channel_order": order}
                yield words + more, config.model_copy(update=form)
