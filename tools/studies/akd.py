"""AKD's two by two: do students that a teacher chose suit the teacher, or are they good students anyway?

python tools/studies/akd.py [--scale smoke|small|large] [--work FOLDER] [--page docs/results/akd.md]

Networks are chosen under one latency limit by short training with labels, with a first or with a second
teacher (1911.09074), with the same policy, budget and seeds; at random with as many evaluations; and by
multiply-accumulates or parameters alone. Each choice is then trained in full with labels and from each
teacher, and tested once. A pool of random networks near the limit tells how far two trainings agree on what
is better, which is the most that any score can be expected to.

Reads $LATHE_SHARED_DATA/fashion_mnist/fashion_mnist.npz. Latencies come from a table that is measured on this
machine the first time, except at the smallest scale, where it is made up. FOLDER keeps everything that was
done: a study that was ended goes on. FOLDER/summary-SCALE.json gets the figures, --page a page with a plot.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from akd_analysis import summarise
from akd_page import write_page
from akd_setup import SCALES, TARGET, images, latency_model, space_for
from units import Units

from devices.digests import value_digest
from pipeline.distill.targets import SoftTargets, StoredTargets
from pipeline.distill.training import accuracy, fit
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.evaluators.short_training import DistillationEvaluator
from pipeline.search.latency import TableLatencyModel
from pipeline.search.loop import search
from pipeline.search.rewards import SoftReward
from pipeline.search.strategies.policy import PolicySettings, PolicyStrategy
from pipeline.search.strategies.random_search import RandomStrategy
from pipeline.spaces.base import Architecture
from pipeline.spaces.cost import network_cost
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.loading import load_teacher
from pipeline.teachers.teacher import Teacher

LIMIT_QUANTILE = 0.4
"""Share of the space that keeps the latency limit."""
BAND = 0.85
"""The pool's networks take at least this share of the limit."""
SIGNALS = ("labels", "first", "second")
SEARCHED = {"labels": "labels", "first": "first", "second": "second", "random": "first"}
"""By whom a network is chosen: the signal that scores it."""
SIZES = ("macs", "parameters")


class Study:
    """One scale in one folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.scale = name, SCALES[name]
        self.dataset = images(self.scale)
        self.space = space_for(self.dataset)
        model = latency_model(self.space, folder, measured=self.scale.measured)
        self.latency = TableLatencyModel(self.space, model)
        members = list(self.space.members())
        highs_ns = np.array([estimate.high_ns for estimate in self.latency.estimate(members)])
        self.limit_ns = float(np.quantile(highs_ns, LIMIT_QUANTILE))
        self.within = [each for each, high in zip(members, highs_ns, strict=True) if high <= self.limit_ns]
        setup = [
            *map(str, (self.scale, self.scale.teacher, self.scale.short, self.scale.full, self.limit_ns)),
            self.dataset.digest,
            self.space.description,
        ]
        self.folder = folder / f"{name}-{value_digest(setup)[:12]}"
        self.folder.mkdir(exist_ok=True)
        self.units = Units(self.folder / "units.jsonl")
        near = (highs_ns <= self.limit_ns) & (highs_ns >= BAND * self.limit_ns)
        self.near = [each for each, is_near in zip(members, near, strict=True) if is_near]
        self.constraints = Constraints(self.space, {str(TARGET): self.latency}, {str(TARGET): self.limit_ns})
        self.teachers, self.teacher_accuracies = self._teachers()
        self.targets = self._targets()

    def run(self) -> dict:
        """Everything that is not done yet, and the figures."""
        chosen = {by: [self.chosen(by, seed) for seed in self._seeds] for by in SEARCHED}
        chosen |= {size: [self.largest(size)] * self.scale.seeds for size in SIZES}
        tested = {
            by: {
                signal: [self.tested(each, signal, seed) for seed, each in enumerate(networks)]
                for signal in SIGNALS
            }
            for by, networks in chosen.items()
        }
        pool = random.Random(0).sample(self.near, min(self.scale.pool, len(self.near)))
        evaluators = {
            "short training, labels": [self.evaluated(each, "labels", 0) for each in pool],
            "short training, first teacher": [self.evaluated(each, "first", 0) for each in pool],
            "short training, second teacher": [self.evaluated(each, "second", 0) for each in pool],
            "multiply-accumulates": [self.size(each, "macs") for each in pool],
            "parameters": [self.size(each, "parameters") for each in pool],
        }
        full = {
            "labels": [self.tested(each, "labels", 0) for each in pool],
            "first": [self.tested(each, "first", 0) for each in pool],
            "first again": [self.tested(each, "first", 1) for each in pool],
        }
        return {
            "scale": self.name,
            "measured": self.scale.measured,
            "limit_ms": self.limit_ns / 1e6,
            "architectures": self.space.count(),
            "within_limit": len(self.within),
            "images": [
                len(split) for split in (self.dataset.train, self.dataset.validation, self.dataset.test)
            ],
            "evaluations": self.scale.evaluations,
            "seeds": self.scale.seeds,
            "short_epochs": self.scale.short.epochs,
            "full_epochs": self.scale.full.epochs,
            "teachers": self.teacher_accuracies,
            "chosen": {by: [dict(each.choices) for each in networks] for by, networks in chosen.items()},
            **summarise(chosen, tested, evaluators, full),
        }

    def chosen(self, by: str, seed: int) -> Architecture:
        """The best of a search, after the best evaluated ones were trained once more from other weights."""
        signal = SEARCHED[by]
        if by == "random":
            strategy = RandomStrategy(self.constraints, seed)
        else:
            reward = SoftReward({str(TARGET): self.latency}, {str(TARGET): self.limit_ns})
            settings = PolicySettings(batch_size=6)
            strategy = PolicyStrategy(self.constraints, seed, reward=reward, settings=settings)
        journal = self.folder / f"search-{by}-{seed}.jsonl"
        candidates = search(
            strategy, self._evaluator(signal, seed), self.scale.evaluations, journal, self._tell
        )
        evaluated = {each.architecture: each.score.value for each in candidates if each.score is not None}
        best = sorted(evaluated, key=evaluated.__getitem__, reverse=True)[: self.scale.evaluated_again]
        return max(best, key=lambda each: evaluated[each] + self.evaluated(each, signal, 1000 + seed))

    def evaluated(self, architecture: Architecture, signal: str, seed: int) -> float:
        """Validation accuracy after short training."""
        unit = f"short {signal} {seed} {architecture.identity[:16]}"
        return self.units.get(unit, lambda: self._evaluator(signal, seed).evaluate(architecture).value)

    def tested(self, architecture: Architecture, signal: str, seed: int) -> float:
        """Test accuracy in points after full training; a seed gives all signals the same weights."""

        def train() -> float:
            started = int(value_digest([seed, architecture.identity])[:8], 16)
            torch.manual_seed(started)
            student = self.space.build(architecture)
            fit(student, self.dataset, self.scale.full, seed=started, targets=self.targets[signal])
            return 100 * accuracy(student, self.dataset.test, self.dataset.preprocessing)

        return self.units.get(f"full {signal} {seed} {architecture.identity[:16]}", train)

    def size(self, architecture: Architecture, name: str) -> float:
        """Multiply-accumulates or parameters."""
        return float(getattr(network_cost(self.space.blocks(architecture)), name))

    def largest(self, name: str) -> Architecture:
        """The network within the limit that has most of them."""
        return max(self.within, key=lambda each: self.size(each, name))

    @property
    def _seeds(self) -> range:
        return range(self.scale.seeds)

    def _evaluator(self, signal: str, seed: int) -> DistillationEvaluator:
        return DistillationEvaluator(self.space, self.dataset, self.targets[signal], self.scale.short, seed)

    def _teachers(self) -> tuple[Mapping[str, Teacher], dict[str, float]]:
        configs = {
            "first": TeacherConfig(width=16, training=self.scale.teacher),
            "second": TeacherConfig(
                kind="factory",
                factory="pipeline.teachers.resnet:resnet_cifar",
                arguments={"depth": 14},
                channels=3,
                training=self.scale.teacher,
            ),
        }
        teachers = {
            name: load_teacher([config], self.dataset, folder=self.folder, seed=0, progress=self._tell)
            for name, config in configs.items()
        }
        accuracies = {
            name: self.units.get(
                f"teacher {name}",
                lambda module=teacher.module: (
                    100 * accuracy(module, self.dataset.test, self.dataset.preprocessing)
                ),
            )
            for name, teacher in teachers.items()
        }
        return teachers, accuracies

    def _targets(self) -> dict[str, SoftTargets | None]:
        train, preprocessing = self.dataset.train, self.dataset.preprocessing
        stored = {name: StoredTargets(each, train, preprocessing) for name, each in self.teachers.items()}
        return {"labels": None, **stored}

    def _tell(self, done: int, total: int, what: object) -> None:
        print(f"{done} of {total} {what if isinstance(what, str) else 'evaluated'}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="smoke")
    parser.add_argument("--work", type=Path, default=Path("lathe-work/akd"))
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    # Trainings must not depend on how many cores there are.
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    result = Study(arguments.scale, arguments.work).run()
    text = json.dumps(result, indent=1)
    (arguments.work / f"summary-{arguments.scale}.json").write_text(text + "\n")
    print(text)
    if arguments.page:
        write_page(result, arguments.page)


if __name__ == "__main__":
    main()
