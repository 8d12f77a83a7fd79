"""What ratings are worth in the mobile space: 30 networks, trained in full and rated.

python tools/studies/mobile_pool.py --data ARCHIVE.npz [--part 1/2] [--work FOLDER]
    [--page PAGE --machine WORDS]

60 networks of the mobile space are drawn and measured on one runtime of this machine. Of the fastest third of
them, the middle one and the slowest, the ten in its middle are the pool. All are distilled from a ResNet-56
that was fine-tuned on the same images, CIFAR-10 as JPEG, all alike; the first of each level twice, from other
seeds, 8 in all. Their accuracy on the test split is the truth. Then they are rated: by Lathe's untrained
evaluators, by weights that all share, and by a short distillation.

With --part 1/2 only every second training is done, so that another process does the others beside; each
should have a core of its own. FOLDER keeps a line for each piece of work, and a study that was ended goes
on. PAGE is written when everything is there.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mobile_pool_page import write_page
from safetensors.torch import load_file
from units import Units

from devices.agent.machine import cpu_name
from devices.digests import file_digest
from devices.measurement import Measurement, MeasuringProtocol
from devices.target import Target
from latency_db.store import open_store
from pipeline.data.base import Dataset, Preprocessing
from pipeline.data.config import DataConfig
from pipeline.data.loading import load
from pipeline.distill.settings import DistillationSettings
from pipeline.distill.targets import targets_for
from pipeline.distill.training import accuracy, fit
from pipeline.progress import ConsoleReporter
from pipeline.search.evaluators.registry import EvaluationTask, find_evaluator
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.spaces.base import Architecture
from pipeline.spaces.cost import network_cost
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.networks import measure_networks
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.resnet import resnet_cifar
from pipeline.teachers.teacher import AdaptedNetwork, Member, Teacher

TARGET = Target("host", "onnxruntime")
DRAWN, LEVELS, OF_LEVEL, TWICE = 60, 3, 10, 8
IN_FULL = DistillationSettings(epochs=3, batch_size=128, learning_rate=0.05, augment="crop-flip", threads=1)
SHORT = IN_FULL.model_copy(update={"epochs": 2})
SHORT_IMAGES, RATED_IMAGES = 8_000, 5_200
"""As in the study of what a search is worth, and in that of ratings on NAS-Bench-201."""
RATINGS = ("naswot", "synflow", "relation", "readout", "blockwise", "one-shot")
SUPERNET = SupernetSettings(epochs=24, threads=1)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEACHER = Path(__file__).parents[2] / "docs" / "results" / "worth" / "resnet56.safetensors"


class Pool:
    """The networks, and what is known of them; every piece of work is done once.

    Args:
        data: the archive of images.
        folder: where it is kept.
    """

    def __init__(self, data: Path, folder: Path) -> None:
        self._data, self._folder = data, folder
        self._units = Units(folder / "pool.jsonl")
        self._space = MobileSpace.from_config(None, (3, 32, 32), 10)

    def _dataset(self, images: int | None) -> Dataset:
        config = DataConfig(kind="npz", path=self._data, validation=0.1, train_limit=images)
        loaded = load(config, seed=0)
        return Dataset(**{**vars(loaded), "preprocessing": Preprocessing(MEAN, STD)})

    @staticmethod
    def _teacher() -> Teacher:
        network = resnet_cifar(depth=56)
        network.load_state_dict(load_file(TEACHER), strict=False)
        # Images are normalised as the teacher wants them.
        adapted = AdaptedNetwork(network, TeacherConfig(kind="train"), Preprocessing(MEAN, STD))
        return Teacher([Member("resnet56", adapted, file_digest(TEACHER))])

    def networks(self) -> list[Architecture]:
        """By level, the fastest level first; measured and chosen by the first call."""
        found = self._units.get("networks", self._chosen)
        return [Architecture(tuple((name, choice) for name, choice in each["choices"])) for each in found]

    def _chosen(self) -> list[dict[str, Any]]:
        generator = random.Random(0)
        drawn = list(dict.fromkeys(self._space.sample(generator) for _ in range(2 * DRAWN)))[:DRAWN]
        with open_store(str(self._folder / "latency.db")) as store:
            bench = Bench(store, MeasuringProtocol(), ConsoleReporter())
            outcomes = measure_networks(bench, self._space, {TARGET: drawn})[TARGET]
        pairs = zip(drawn, outcomes, strict=True)
        known = {each: found.latency.value_ns for each, found in pairs if isinstance(found, Measurement)}
        thirds = np.array_split(np.arange(len(known)), LEVELS)
        chosen, ordered = [], sorted(known, key=known.__getitem__)
        for level, third in enumerate(thirds):
            spare = (len(third) - OF_LEVEL) // 2
            for each in [ordered[place] for place in third[spare : spare + OF_LEVEL]]:
                cost = network_cost(self._space.blocks(each))
                size = {"parameters": cost.parameters, "macs": cost.macs}
                chosen.append({"choices": each.choices, "level": level, "latency_ns": known[each], **size})
        return chosen

    def train(self, part: int, parts: int) -> None:
        """The trainings of a part, one after the other."""
        networks = self.networks()
        order = [place + OF_LEVEL * level for place in range(OF_LEVEL) for level in range(LEVELS)]
        wanted = [(place, 0) for place in order] + [(place, 1) for place in order[:TWICE]]
        units, dataset, teacher = Units(self._trainings(part, parts)), self._dataset(None), self._teacher()
        for place, seed in wanted[part - 1 :: parts]:
            units.get(
                f"training {place} {seed}",
                lambda place=place, seed=seed: self._trained(networks[place], seed, dataset, teacher, place),
            )

    def _trainings(self, part: int, parts: int) -> Path:
        return self._folder / f"trainings-{part}-of-{parts}.jsonl"

    def _trained(
        self, architecture: Architecture, seed: int, dataset: Dataset, teacher: Teacher, place: int
    ) -> dict[str, Any]:
        began = time.process_time()
        torch.manual_seed(seed)
        student = self._space.build(architecture)
        checkpoint = self._folder / f"training-{place}-{seed}.pt"
        targets = targets_for(teacher, dataset, IN_FULL)
        result = fit(student, dataset, IN_FULL, seed=seed, targets=targets, checkpoint=checkpoint)
        found = accuracy(student, dataset.test, dataset.preprocessing)
        checkpoint.unlink(missing_ok=True)
        return {
            "test_accuracy": found,
            "validation_accuracy": result.best_validation_accuracy,
            "epochs": len(result.history),
            "images": len(dataset.train),
            "core_seconds": round(time.process_time() - began, 1),
            "processor": cpu_name(),
        }

    def rate(self) -> None:
        """Every rating of every network, and the short distillations."""
        networks, teacher = self.networks(), self._teacher()
        for name in (*RATINGS, "short-training"):
            short = name == "short-training"
            dataset = self._dataset(SHORT_IMAGES if short else round(RATED_IMAGES / 0.9))
            shared: dict[str, torch.Tensor] = {}
            task = EvaluationTask(
                self._space,
                dataset,
                SHORT,
                0,
                lambda: teacher.module,
                lambda dataset=dataset: targets_for(teacher, dataset, SHORT),
                SUPERNET,
                lambda shared=shared: shared,
            )
            kind = find_evaluator(name)
            if self._units.known(f"{name} {len(networks) - 1}") is not None:
                continue
            if kind.train is not None:
                began = time.process_time()
                tensors, _ = kind.train(task, self._folder / f"{name}.pt", told)
                shared |= tensors
                seconds = round(time.process_time() - began, 1)
                self._units.get(f"{name} training", lambda seconds=seconds: {"core_seconds": seconds})
            evaluator = kind.make(task)
            for place, each in enumerate(networks):
                self._units.get(f"{name} {place}", lambda e=evaluator, a=each: rated(e, a))

    def everything(self) -> Mapping[str, Any]:
        """All that was done so far, by piece of work."""
        found = dict(self._units.done)
        for path in sorted(self._folder.glob("trainings-*.jsonl")):
            found |= Units(path).done
        return found


def told(done: int, total: int) -> None:
    print(f"shared weights: epoch {done} of {total}", file=sys.stderr, flush=True)


def rated(evaluator: Any, architecture: Architecture) -> dict[str, float]:
    began = time.process_time()
    value = evaluator.evaluate(architecture).value
    return {"value": value, "core_seconds": round(time.process_time() - began, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", default="1/1", metavar="NUMBER/PARTS")
    parser.add_argument("--work", type=Path, default=Path("mobile-pool-study"))
    parser.add_argument("--page", type=Path)
    parser.add_argument("--machine", default="this machine", help="where it ran, for the page")
    arguments = parser.parse_args()
    part, parts = map(int, arguments.part.split("/"))
    pool = Pool(arguments.data, arguments.work)
    pool.train(part, parts)
    if part == 1:
        pool.rate()
    if arguments.page:
        write_page(pool.everything(), arguments.page, arguments.machine)


if __name__ == "__main__":
    main()
