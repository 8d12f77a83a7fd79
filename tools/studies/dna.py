"""Does the block-wise score of DNA rank networks as training them does? On Fashion-MNIST, at small scale.

python tools/studies/dna.py [--scale smoke|small|large] [--work FOLDER] [--page docs/results/dna.md]

Networks drawn in equal numbers from bands of MACs are trained with labels under one recipe, twice with other
seeds. Their test accuracies are what every evaluator has to rank: DNA and its ablations, a single-path
supernet trained with labels (SPOS, 1904.00420), MACs, parameters, and the accuracy after a short
distillation. Kendall's tau is taken over all networks, and over the pairs inside the bands; intervals are
bootstrapped over networks. Then the network that DNA finds within each band's MACs is trained, and compared
with the band's, with a uniform one, and in the middle band with random ones of nearly its own MACs.

Reads $LATHE_SHARED_DATA/fashion_mnist/fashion_mnist.npz. What is finished is kept in FOLDER, and a killed
study goes on from there. The page is written if --page is given; at the scale "smoke" it says nothing about
DNA.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from dna_page import write_page
from dna_ranking import rank
from dna_scale import SCALES, Scale, SposSettings, draw, macs_of, near, space_for, teacher_network, uniform
from dna_spos import SposEvaluator
from torch import nn

from pipeline.data.base import Dataset
from pipeline.data.config import DataConfig
from pipeline.data.loading import load
from pipeline.distill.settings import DistillationSettings, TrainingSettings
from pipeline.distill.targets import StoredTargets
from pipeline.distill.training import accuracy, fit
from pipeline.methods.dna.cutting import cut_teacher
from pipeline.methods.dna.result import BlockScores, block_losses
from pipeline.methods.dna.run import score_blocks
from pipeline.methods.dna.selecting import select_architectures
from pipeline.search.evaluators.short_training import DistillationEvaluator
from pipeline.spaces.base import Architecture
from pipeline.spaces.cost import network_cost
from pipeline.spaces.dna.space import DnaSpace
from pipeline.teachers.teacher import Member, Teacher
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder, stage

SHARED = Path(os.environ.get("LATHE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
ABLATIONS = {
    "DNA": {},
    "DNA, student's features as input": {"inputs": "student"},
    "DNA, raw MSE": {"measure": "mse"},
    "DNA, no recalibration": {"recalibrate": False},
}


@dataclass(frozen=True)
class Trained:
    """Test accuracy of a network, and the checkpoint of its training."""

    accuracy: float
    checkpoint: StoredFile


@dataclass(frozen=True)
class Numbers:
    """A number per network."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class TrainedInput:
    """What decides how a network is trained with labels; without an architecture it is the teacher."""

    space: DnaSpace
    architecture: Architecture | None
    settings: TrainingSettings
    seed: int
    dataset: Dataset = by_digest()

    def network(self) -> nn.Module:
        torch.manual_seed(self.seed)
        return (
            teacher_network(self.dataset)
            if self.architecture is None
            else self.space.build(self.architecture)
        )


@stage("trained", packages=("torch",))
def train_with_labels(given: TrainedInput, folder: StageFolder, services: None) -> Trained:
    network = given.network()
    fit(network, given.dataset, given.settings, seed=given.seed, checkpoint=folder / "checkpoint")
    found = accuracy(network, given.dataset.test, given.dataset.preprocessing)
    return Trained(found, folder.stored("checkpoint"))


@dataclass(frozen=True)
class SposInput:
    """What decides the scores of a single-path supernet."""

    space: DnaSpace
    networks: tuple[Architecture, ...]
    settings: SposSettings
    seed: int
    dataset: Dataset = by_digest()


@stage("spos", packages=("torch",))
def score_by_spos(given: SposInput, folder: StageFolder, services: None) -> Numbers:
    evaluator = SposEvaluator(given.space, given.dataset, given.settings, given.seed)
    evaluator.train(folder / "checkpoint")
    return Numbers(tuple(evaluator.evaluate(network) for network in given.networks))


@dataclass(frozen=True)
class ProxyInput:
    """What decides the validation accuracy of a network after a short distillation."""

    space: DnaSpace
    network: Architecture
    settings: DistillationSettings
    seed: int
    teacher: StoredFile
    dataset: Dataset = by_digest()


@stage("proxy", packages=("torch",))
def score_by_proxy(given: ProxyInput, folder: StageFolder, evaluator: DistillationEvaluator) -> Numbers:
    """The evaluator is of the input; all networks share its targets."""
    return Numbers((evaluator.evaluate(given.network).value,))


class Study:
    """The stages of the study; each is kept in the folder."""

    def __init__(self, scale: Scale, work: WorkFolder, seed: int) -> None:
        self.scale, self.work, self.seed = scale, work, seed
        config = DataConfig(
            kind="npz",
            path=SHARED / "fashion_mnist" / "fashion_mnist.npz",
            train_limit=scale.train,
            test_limit=scale.test,
        )
        self.dataset = load(config, seed=seed)
        self.space = space_for(self.dataset)
        self.bands = draw(self.space, scale.networks, scale.bands, seed)
        self.networks = [network for band in self.bands for network in band]

    def teacher(self) -> tuple[Teacher, Trained]:
        given = TrainedInput(self.space, None, self.scale.teacher, self.seed, self.dataset)
        trained = self.work.run(train_with_labels, given, None)
        network = given.network()
        # A finished checkpoint gives the weights of the best epoch without training.
        checkpoint = self.work.find(trained.checkpoint)
        fit(network, self.dataset, self.scale.teacher, seed=self.seed, checkpoint=checkpoint)
        return Teacher([Member("teacher", network, "teacher")]), trained

    def accuracies(self, seed: int) -> list[float]:
        """Test accuracy of every network, trained alone with labels."""
        found = []
        for network in self.networks:
            found.append(self.alone(network, seed))
            note(f"trained alone, seed {seed}: {len(found)}/{len(self.networks)}, {found[-1]:.4f}")
        return found

    def dna(self, teacher: Teacher, changes: dict[str, object]) -> tuple[BlockScores, ...]:
        cut = cut_teacher(teacher.module, self.dataset.input_shape)
        settings = self.scale.dna.model_copy(update=changes)
        return score_blocks(self.space, cut, self.dataset, settings, work=self.work, seed=self.seed)

    def losses(self, scores: tuple[BlockScores, ...]) -> list[float]:
        return [sum(block_losses(self.space, scores, network)) for network in self.networks]

    def found(
        self, scores: tuple[BlockScores, ...], accuracies: list[float]
    ) -> list[dict[str, float | None]]:
        """For each band, DNA's network with no more MACs than its largest, trained as the band's were.

        Beside it the largest network within these MACs that has the same cell and operation everywhere, which
        is how one is made by hand.
        """
        rows = []
        count = len(self.bands[0])
        for number, band in enumerate(self.bands):
            most = max(macs_of(self.space, network) for network in band)
            best = select_architectures(self.space, scores, {}, {"macs": most}).selected[0]
            plain = [each for each in uniform(self.space) if macs_of(self.space, each) <= most]
            largest = max(plain, key=lambda each: macs_of(self.space, each), default=None)
            others = accuracies[number * count : (number + 1) * count]
            rows.append(
                {
                    "limit_macs": float(most),
                    "macs": best.costs["macs"],
                    "found": self.alone(best.architecture, 0),
                    "uniform": self.alone(largest, 0) if largest else None,
                    "mean": float(np.mean(others)),
                    "best": max(others),
                }
            )
        return rows

    def rivals(self, scores: tuple[BlockScores, ...]) -> dict[str, object]:
        """DNA's network of the middle band against random ones of nearly its MACs, all trained alike."""
        most = max(macs_of(self.space, network) for network in self.bands[len(self.bands) // 2])
        best = select_architectures(self.space, scores, {}, {"macs": most}).selected[0]
        drawn = near(self.space, best.costs["macs"], self.scale.rivals, self.seed)
        accuracies = []
        for network in drawn:
            accuracies.append(self.alone(network, 0))
            note(f"rivals: {len(accuracies)}/{len(drawn)}, {accuracies[-1]:.4f}")
        return {
            "macs": best.costs["macs"],
            "found": [self.alone(best.architecture, seed) for seed in range(3)],
            "rivals": accuracies,
        }

    def alone(self, network: Architecture, seed: int) -> float:
        """Test accuracy of a network, trained alone with labels."""
        given = TrainedInput(self.space, network, self.scale.alone, seed, self.dataset)
        return self.work.run(train_with_labels, given, None).accuracy

    def spos(self) -> list[float]:
        networks = tuple(self.networks)
        given = SposInput(self.space, networks, self.scale.spos, self.seed, self.dataset)
        return list(self.work.run(score_by_spos, given, None).values)

    def proxy(self, teacher: Teacher, trained: Trained) -> list[float]:
        """Validation accuracy after a short distillation."""
        settings, seed = self.scale.proxy, self.seed
        targets = StoredTargets(teacher, self.dataset.train, self.dataset.preprocessing)
        evaluator = DistillationEvaluator(self.space, self.dataset, targets, settings, seed=seed)
        inputs = [
            ProxyInput(self.space, network, settings, seed, trained.checkpoint, self.dataset)
            for network in self.networks
        ]
        return [self.work.run(score_by_proxy, given, evaluator).values[0] for given in inputs]


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(study: Study) -> dict[str, object]:
    """Every evaluator's ranking, as JSON."""
    started = time.perf_counter()
    teacher, trained = study.teacher()
    note(f"teacher {trained.accuracy:.4f}")
    scores: dict[str, list[float]] = {}
    blocks = study.dna(teacher, {})
    for name, changes in ABLATIONS.items():
        scores[name] = [-loss for loss in study.losses(study.dna(teacher, changes))]
        note(f"evaluated by {name}, {time.perf_counter() - started:.0f} s")
    scores["SPOS"] = study.spos()
    scores["distillation proxy"] = study.proxy(teacher, trained)
    costs = [network_cost(study.space.blocks(network)) for network in study.networks]
    scores["MACs"] = [float(cost.macs) for cost in costs]
    scores["parameters"] = [float(cost.parameters) for cost in costs]
    note(f"all evaluated, {time.perf_counter() - started:.0f} s")
    first, second = (study.accuracies(seed) for seed in (0, 1))
    scores["trained again (ceiling)"] = second
    bands = np.repeat(np.arange(len(study.bands)), [len(band) for band in study.bands])
    rankings = rank({name: np.array(each) for name, each in scores.items()}, np.array(first), bands)
    return {
        "networks": len(study.networks),
        "bands": len(study.bands),
        "architectures": study.space.count(),
        "train_images": len(study.dataset.train),
        "test_images": len(study.dataset.test),
        "epochs_alone": study.scale.alone.epochs,
        "teacher_accuracy": trained.accuracy,
        "accuracies": {"least": min(first), "mean": float(np.mean(first)), "most": max(first)},
        "macs": [min(cost.macs for cost in costs), max(cost.macs for cost in costs)],
        "found": study.found(blocks, first),
        "rivals": study.rivals(blocks),
        "rankings": {name: dataclasses.asdict(each) for name, each in rankings.items()},
        "scores": scores | {"accuracy": first},
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Rank correlation of DNA's score on Fashion-MNIST.")
    parser.add_argument("--scale", choices=SCALES, default="smoke")
    parser.add_argument("--work", type=Path, default=Path("lathe-work/dna"))
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    with WorkFolder(arguments.work / arguments.scale).opened() as work:
        document = run(Study(SCALES[arguments.scale], work, seed=0))
    print(json.dumps(document, indent=1, allow_nan=False))
    if arguments.page:
        write_page(arguments.page, arguments.scale, document)


if __name__ == "__main__":
    main()
