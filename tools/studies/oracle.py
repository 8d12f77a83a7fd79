"""Oracle distillation on a fixed network: are those members of an ensemble that are right better teachers?

python tools/studies/oracle.py [--scale smoke|small] [--work FOLDER] [--state FILE] [--page PAGE]

One network is trained by labels alone, by the average of an ensemble, and by the members that are right
(1911.13019), from the same weights and with the same order of images and augmentation for each seed. The
members are networks of the same kind, stopped early, so that they differ on many train images. The part that
searches is oracle_search.py.

Reads $LATHE_SHARED_DATA/cifar10_jpeg. FILE keeps every result, FOLDER the members: a study that was ended
goes on, and --seconds ends it between two trainings. PAGE, docs/results/oracle.md, gets what there is.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from akd_setup import SHARED
from oracle_search import Searches, SearchScale, section
from scipy.stats import t
from units import Units

from pipeline.data.base import Dataset
from pipeline.data.config import DataConfig
from pipeline.data.loading import load
from pipeline.distill.losses.settings import (
    LabelsSettings,
    LossSettings,
    OracleSettings,
    SoftTargetsSettings,
)
from pipeline.distill.settings import DistillationSettings, TrainingSettings
from pipeline.distill.targets import targets_for
from pipeline.distill.training import accuracy, fit
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.ensemble import EnsembleFigures, figures_of
from pipeline.teachers.loading import load_teacher
from pipeline.teachers.resnet import resnet_cifar
from pipeline.teachers.teacher import Teacher

STATE = Path(__file__).parents[2] / "docs" / "results" / "oracle" / "units.jsonl"
LABELS = LabelsSettings(weight=0.1)
ARMS: dict[str, tuple[LossSettings, ...]] = {
    "labels": (LabelsSettings(),),
    "average": (LABELS, SoftTargetsSettings(weight=0.9)),
    "oracle": (LABELS, OracleSettings(weight=0.9)),
}
WORDS = {"labels": "labels alone", "average": "average of the members", "oracle": "members that are right"}
FIGURES = tuple(EnsembleFigures.__dataclass_fields__)


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    train_limit: int
    test_limit: int
    image_size: int
    members: int
    member_epochs: int
    student_epochs: int
    seeds: int
    depth: int = 8
    search: SearchScale = field(default_factory=lambda: SearchScale(16, 100, 3, 3))

    @property
    def member(self) -> TeacherConfig:
        epochs = self.member_epochs
        training = TrainingSettings(
            epochs=epochs, patience=epochs, batch_size=64, learning_rate=0.1, augment="crop-flip"
        )
        return TeacherConfig(
            kind="factory",
            factory="pipeline.teachers.resnet:resnet_cifar",
            arguments={"depth": self.depth},
            training=training,
            members=self.members,
        )

    def training(self, loss: tuple[LossSettings, ...]) -> DistillationSettings:
        epochs = self.student_epochs
        return DistillationSettings(
            epochs=epochs, patience=epochs, batch_size=64, learning_rate=0.1, augment="crop-flip", loss=loss
        )


SCALES = {
    "smoke": Scale(400, 200, 16, 2, 1, 1, 2, search=SearchScale(1, 4, 1, 1)),
    "small": Scale(8000, 5000, 16, 3, 12, 16, 5),
}


class OutOfTime(Exception):
    """The seconds that were given are spent."""


class Study:
    """One scale; every result is a unit of its state."""

    def __init__(self, name: str, folder: Path, state: Path, seconds: float) -> None:
        self.name, self.scale = name, SCALES[name]
        self._folder, self._units = folder / name, Units(state)
        self._until = time.monotonic() + seconds

    def run(self) -> None:
        """What is not done yet: all arms of a seed before the next seed, so that pairs are whole."""
        figures: dict[str, float] | None = None

        def figure(name: str) -> float:
            nonlocal figures
            figures = figures or asdict(figures_of(self.teacher, self.dataset))
            return figures[name]

        for each in FIGURES:
            self.unit(f"ensemble {each}", lambda each=each: figure(each))  # type: ignore[misc]
        self.unit("ensemble accuracy", lambda: self.tested(self.teacher.module))
        for place in range(self.scale.members):
            self.unit(
                f"member {place} accuracy",
                lambda place=place: self.tested(self.teacher.members[place].network),  # type: ignore[misc]
            )
        for seed in range(self.scale.seeds):
            for arm in ARMS:
                self.unit(f"{arm} {seed}", lambda arm=arm, seed=seed: self._trained(arm, seed))  # type: ignore[misc]
        self.searches.run()

    @cached_property
    def searches(self) -> Searches:
        """Of additions to a backbone."""
        return Searches(self, self.scale.search, ARMS, self.scale.training, self._folder)

    def known(self, unit: str) -> Any:
        """A result, if there is one."""
        return self._units.known(f"{self.name} {unit}")

    def values(self, arm: str) -> list[float | None]:
        """Test accuracy in %, by seed."""
        return [self.known(f"{arm} {seed}") for seed in range(self.scale.seeds)]

    @cached_property
    def dataset(self) -> Dataset:
        """CIFAR-10 (JPEG q75), made smaller."""
        path = SHARED / "cifar10_jpeg" / "cifar10_jpeg_bytes.npz"
        config = DataConfig(
            kind="npz",
            path=path,
            validation=0.15,
            train_limit=self.scale.train_limit,
            test_limit=self.scale.test_limit,
            image_size=self.scale.image_size,
        )
        return load(config, seed=0)

    @cached_property
    def teacher(self) -> Teacher:
        """The ensemble, trained where it was not."""
        return load_teacher(
            [self.scale.member], self.dataset, folder=self._folder, seed=1000, progress=lambda *_: None
        )

    def unit(self, unit: str, compute: Callable[[], Any]) -> Any:
        """A piece of work, done once.

        Raises:
            OutOfTime: the seconds are spent, and it is not done yet.
        """
        if self.known(unit) is None and time.monotonic() > self._until:
            raise OutOfTime
        return self._units.get(f"{self.name} {unit}", compute)

    def _trained(self, arm: str, seed: int) -> float:
        torch.manual_seed(seed)
        student = resnet_cifar(self.scale.depth)
        settings = self.scale.training(ARMS[arm])
        targets = targets_for(self.teacher, self.dataset, settings)
        fit(student, self.dataset, settings, seed=seed, targets=targets)
        return self.tested(student)

    def tested(self, network: torch.nn.Module) -> float:
        """Test accuracy in %."""
        return 100 * accuracy(network, self.dataset.test, self.dataset.preprocessing)


def interval(values: list[float]) -> str:
    """Mean and 95 % interval by Student's t over seeds: a bootstrap of three or four values is too narrow."""
    if len(values) < 2:
        return f"{statistics.mean(values):.2f}" if values else "not run"
    mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def differences(study: Study, one: str, other: str) -> list[float]:
    """``one`` less ``other``, of the seeds that have both."""
    pairs = zip(study.values(one), study.values(other), strict=True)
    return [a - b for a, b in pairs if a is not None and b is not None]


def page(study: Study) -> str:
    """What there is."""
    scale = study.scale
    done = {arm: [value for value in study.values(arm) if value is not None] for arm in ARMS}
    rows = "\n".join(f"| {WORDS[arm]} | {interval(values)} | {len(values)} |" for arm, values in done.items())
    pairs = (("average", "labels"), ("oracle", "labels"), ("oracle", "average"))
    effects = "\n".join(
        f"| {WORDS[one]}, not {WORDS[other]} | {interval(found)} | {len(found)} |"
        for one, other in pairs
        for found in [differences(study, one, other)]
    )
    members = [study.known(f"member {place} accuracy") for place in range(scale.members)]
    shares = {name: study.known(f"ensemble {name}") or 0.0 for name in FIGURES}
    alone = ", ".join(f"{each:.1f}" for each in members if each is not None)
    return f"""# Are the members that are right better teachers?

`python tools/studies/oracle.py --scale {study.name} --page docs/results/oracle.md` wrote this page from
`docs/results/oracle/units.jsonl`.

[Oracle distillation](../methods/oracle.md) teaches every image by those members of an ensemble that
classify it rightly, and by its label where none does. This study asks what that changes for a fixed network.

- Data: CIFAR-10 (JPEG q75) at {scale.image_size}x{scale.image_size} pixels, {scale.train_limit} images to
  train and validate, {scale.test_limit} to test.
- Network: ResNet-{scale.depth} of width 16, {scale.student_epochs} epochs with crops and flips.
- Ensemble: {scale.members} networks of the same kind, {scale.member_epochs} epochs each; {alone} % of the
  test images right, together {study.known("ensemble accuracy") or 0:.1f} %.
- Members differ: two of them agree on {shares["agreement"]:.1%} of the validation images, at least one is
  right on {shares["oracle_accuracy"]:.1%}. Of the train images all are right on {shares["all_right"]:.1%},
  **some on {shares["mixed"]:.1%}**, none on {shares["none_right"]:.1%}.
- Losses: 0.1 of labels and 0.9 of soft targets at temperature 4, so that every image weighs the same in all
  arms.

## Test accuracy

Means over seeds in %, with 95 % intervals by Student's t. They cover the seeds, not the choice of test images
or members, which all arms share.

| trained by | test accuracy | seeds |
| --- | --- | --- |
{rows}

## Effects

Differences between results of the same seed, in points.

| effect | points | seeds |
| --- | --- | --- |
{effects}

An interval that holds 0 is a null: this study cannot tell such an effect from chance.

## Searches

{section(study.searches, WORDS, interval)}"""


def main() -> None:
    """Run what is left, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="smoke")
    parser.add_argument("--work", type=Path, default=Path("lathe-work/oracle"))
    parser.add_argument("--state", type=Path, default=STATE)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    # Trainings must not depend on how many cores there are.
    torch.set_num_threads(1)
    study = Study(arguments.scale, arguments.work, arguments.state, arguments.seconds)
    try:
        study.run()
    except OutOfTime:
        print("the seconds are spent; run again to go on")
    if arguments.page:
        arguments.page.write_text(page(study))


if __name__ == "__main__":
    main()
