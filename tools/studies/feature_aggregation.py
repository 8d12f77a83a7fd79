"""Where does the search for feature aggregation put its weight, and are the students better for it?

python tools/studies/feature_aggregation.py [--scale smoke|small] [--work FOLDER] [--state FILE] [--page PAGE]

The mixtures of every layer group are searched with the bridge loss of DFA (2008.00506), with either of its
paths alone, and with the loss of the final training, by several seeds. Then a fresh student is trained with
each of these mixtures, with the last maps, the average and five random mixtures, and with labels alone, soft
targets, decoupled KD, FitNet and attention transfer; the same seed gives all of them the same first weights
and order. The weight of feature aggregation is chosen once, for the last maps, on the validation slice. At
last the bridge is searched with at other balances of its paths.

Reads $LATHE_SHARED_DATA/fashion_mnist/fashion_mnist.npz. FOLDER keeps the teacher. FILE gets a line for each
search and training, and what it holds is not done again: a study that was ended goes on. PAGE gets a page
with a plot, of the seeds that are complete.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from feature_aggregation_page import write_page
from units import Units

from pipeline.data.config import DataConfig
from pipeline.data.loading import load
from pipeline.distill.aggregation.search import search_mixtures
from pipeline.distill.aggregation.settings import MixtureSearchSettings
from pipeline.distill.losses.settings import (
    AttentionTransferSettings,
    DecoupledKdSettings,
    FeatureAggregationSettings,
    FitNetSettings,
    LabelsSettings,
    LossSettings,
    SoftTargetsSettings,
)
from pipeline.distill.settings import DistillationSettings, TrainingSettings
from pipeline.distill.targets import LiveTargets
from pipeline.distill.training import accuracy, fit
from pipeline.spaces.cost import network_cost
from pipeline.spaces.mobile.config import MobileSpaceConfig, StageConfig
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.loading import load_teacher

SHARED = Path(os.environ.get("LATHE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
SEARCHES = ("bridge", "teacher_to_student", "student_to_teacher", "student_loss")
SWEPT = {"bridge_tenth": 0.1, "bridge_tenfold": 10.0}
"""Searches with the bridge at other balances, whose mixtures no student is trained with."""
RANDOM = 5
OTHERS: dict[str, tuple[LossSettings, ...]] = {
    "labels": (LabelsSettings(),),
    "soft_targets": (LabelsSettings(weight=0.1), SoftTargetsSettings(weight=0.9)),
    "decoupled_kd": (LabelsSettings(), DecoupledKdSettings()),
    "attention_transfer": (LabelsSettings(), AttentionTransferSettings(weight=1000)),
}
TUNED_SEED = 1000
TEST_LIMIT = 5000


@dataclass(frozen=True)
class Scale:
    """How much is done, and with what."""

    teacher_images: int
    student_images: tuple[int, int, int]
    seeds: int
    weights: tuple[float, ...]
    teacher_epochs: int
    student_epochs: int
    search: MixtureSearchSettings
    teacher_width: int = 12
    teacher_depth: int = 3
    image_size: int = 14

    @property
    def teacher(self) -> TrainingSettings:
        epochs = self.teacher_epochs
        return TrainingSettings(epochs=epochs, patience=epochs, augment="crop-flip")

    def student(self, loss: tuple[LossSettings, ...] = (LabelsSettings(),)) -> DistillationSettings:
        return DistillationSettings(
            epochs=self.student_epochs,
            patience=self.student_epochs,
            batch_size=32,
            learning_rate=0.1,
            augment="crop-flip",
            loss=loss,
        )


SCALES = {
    "smoke": Scale(
        200, (60, 40, 60), 2, (1.0,), 1, 1, MixtureSearchSettings(epochs=2, warmup_epochs=1), 4, 2, 8
    ),
    # A quarter of an hour of one core for three seeds.
    "small": Scale(
        10_000, (1500, 600, 3000), 5, (0.3, 1.0, 3.0), 7, 5, MixtureSearchSettings(epochs=7, warmup_epochs=2)
    ),
}


class Study:
    """One scale, and the state that it goes on from."""

    def __init__(self, name: str, folder: Path, state: Path) -> None:
        self.name, self.scale, self.units = name, SCALES[name], Units(state)
        scale = self.scale
        config = DataConfig(
            kind="npz",
            path=SHARED / "fashion_mnist" / "fashion_mnist.npz",
            validation=0.2,
            train_limit=scale.teacher_images,
            test_limit=TEST_LIMIT,
            image_size=scale.image_size,
        )
        self.of_teacher = load(config, seed=0)
        splits = self.of_teacher.train, self.of_teacher.validation, self.of_teacher.test
        train, validation, test = (
            # Rows come in a random order.
            split.take(np.arange(min(count, len(split))))
            for split, count in zip(splits, scale.student_images, strict=True)
        )
        self.dataset = replace(self.of_teacher, train=train, validation=validation, test=test)
        folder.mkdir(parents=True, exist_ok=True)
        self.teacher = load_teacher(
            [TeacherConfig(width=scale.teacher_width, depth=scale.teacher_depth, training=scale.teacher)],
            self.of_teacher,
            folder=folder,
            seed=0,
            progress=lambda *_: None,
        )
        self.space = student_space(self.dataset.input_shape, len(self.dataset.classes))

    def run(self) -> None:
        """Everything that is not done yet: the searches of three seeds first, then seed by seed."""
        self.units.get("teacher", lambda: self._tested(self.teacher.module))
        for seed in range(min(3, self.scale.seeds)):
            self.searches(seed)
        for weight in self.scale.weights:
            self.tuned(weight)
        for seed in range(self.scale.seeds):
            self.searches(seed)
            for arm, loss in self.arms(seed).items():
                self.units.get(f"train {arm} {seed}", lambda loss=loss, seed=seed: self._trained(loss, seed))
            for name, balance in SWEPT.items():
                self.units.get(
                    f"search {name} {seed}",
                    lambda balance=balance, seed=seed: self._found("bridge", seed, balance=balance),
                )

    def searches(self, seed: int) -> dict[str, list[dict[str, Any]]]:
        """By objective, what was found in each group."""
        return {
            each: self.units.get(f"search {each} {seed}", lambda e=each: self._found(e, seed))
            for each in SEARCHES
        }

    def tuned(self, weight: float) -> float:
        """Validation accuracy with the last maps at a weight."""
        loss = (LabelsSettings(), FeatureAggregationSettings(weight=weight, mixture="last"))
        tested = self.units.get(f"tune {weight}", lambda: self._trained(loss, TUNED_SEED))
        return tested["validation"]

    def arms(self, seed: int) -> dict[str, tuple[LossSettings, ...]]:
        """What students of a seed are trained with."""
        weight = max(self.scale.weights, key=self.tuned)
        plain = FeatureAggregationSettings(weight=weight, mixture="last")
        mixtures = {
            "last": plain,
            "average": plain.model_copy(update={"mixture": "average"}),
            **{
                f"random{number}": plain.model_copy(
                    update={"mixture": "random", "mixture_seed": RANDOM * seed + number}
                )
                for number in range(RANDOM)
            },
            **{
                name: plain.found(tuple(tuple(group["shares"]) for group in found))
                for name, found in self.searches(seed).items()
            },
        }
        # FitNet's loss is the mean over the sizes, feature aggregation's the sum.
        fitnet = FitNetSettings(weight=weight * len(self.searches(seed)["bridge"]))
        return (
            OTHERS
            | {"fitnet": (LabelsSettings(), fitnet)}
            | {name: (LabelsSettings(), loss) for name, loss in mixtures.items()}
        )

    def _found(self, objective: str, seed: int, *, balance: float = 1.0) -> list[dict[str, Any]]:
        settings = self.scale.search.model_copy(update={"objective": objective, "balance": balance})
        found = search_mixtures(
            self._fresh(seed), self.teacher.module, self.dataset, settings, self.scale.student(), seed=seed
        )
        return [asdict(group) | {"depth": group.depth} for group in found]

    def _trained(self, loss: tuple[LossSettings, ...], seed: int) -> dict[str, float]:
        student = self._fresh(seed)
        targets = LiveTargets(self.teacher)
        fit(student, self.dataset, self.scale.student(loss), seed=seed, targets=targets)
        return self._tested(student)

    def _tested(self, network: torch.nn.Module) -> dict[str, float]:
        dataset = self.dataset
        return {
            name: 100 * accuracy(network, split, dataset.preprocessing)
            for name, split in (("validation", dataset.validation), ("test", dataset.test))
        }

    def _fresh(self, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return self.space.build(self.space.reference())

    def describe(self) -> dict[str, Any]:
        """What the page says of the setting."""
        dataset, scale = self.dataset, self.scale
        return {
            "scale": self.name,
            "images": [len(dataset.train), len(dataset.validation), len(dataset.test)],
            "teacher_images": len(self.of_teacher.train),
            "image_size": scale.image_size,
            "student_parameters": network_cost(self.space.blocks(self.space.reference())).parameters,
            "student_epochs": scale.student_epochs,
            "search_epochs": scale.search.epochs,
            "warmup_epochs": scale.search.warmup_epochs,
            "weight": max(scale.weights, key=self.tuned),
            "weights": list(scale.weights),
        }


def student_space(input_shape: tuple[int, int, int], classes: int) -> MobileSpace:
    """A space of one network, of three spatial sizes."""

    def stage(width: int, depth: int, stride: int) -> StageConfig:
        return StageConfig(
            widths=(width,),
            depths=(depth,),
            stride=stride,
            kernels=(3,),
            expansions=(3,),
            squeeze_excite=(0.0,),
        )

    stages = (stage(8, 1, 1), stage(16, 2, 2), stage(24, 2, 2))
    config = MobileSpaceConfig(stem_width=8, head_width=48, stages=stages)
    return MobileSpace.from_config(config, input_shape, classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="smoke")
    parser.add_argument("--work", type=Path, default=Path("lathe-work/feature-aggregation"))
    parser.add_argument("--state", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--only-page", action="store_true", help="write the page of what is there")
    arguments = parser.parse_args()
    # Trainings must not depend on how many cores there are.
    torch.set_num_threads(1)
    state = arguments.state or arguments.work / f"units-{arguments.scale}.jsonl"
    study = Study(arguments.scale, arguments.work, state)
    if not arguments.only_page:
        study.run()
    if arguments.page:
        write_page(study.describe(), study.units.done, arguments.page)


if __name__ == "__main__":
    main()
