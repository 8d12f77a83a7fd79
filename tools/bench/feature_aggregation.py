"""Time of a step of DFA's search over a step of plain distillation, as JSON.

python tools/bench/feature_aggregation.py [REPEATS]

A step of the search improves the mixture on one batch and the weights on another, and runs both networks
on each; a step of plain distillation trains with labels and soft targets of a teacher that runs. Images are
noise. Each repeat times an epoch of every kind in turn, so that a slow time of the machine meets them all.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median

import numpy as np
import torch
from torch import nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.distill.aggregation.search import search_mixtures
from pipeline.distill.aggregation.settings import MixtureSearchSettings
from pipeline.distill.settings import DistillationSettings
from pipeline.distill.targets import LiveTargets
from pipeline.distill.training import fit
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.teacher import Member, Teacher

SIZE, IMAGES, BATCH = 16, 128, 32
TRAINING = DistillationSettings(epochs=1, batch_size=BATCH)
STEPS = IMAGES // BATCH


def student() -> nn.Module:
    torch.manual_seed(0)
    space = MobileSpace.from_config(None, (3, SIZE, SIZE), 10)
    return space.build(space.reference())


def dataset(count: int) -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    train = Split(images, np.arange(count, dtype=np.int64) % 10)
    few = train.take(np.arange(10))
    return Dataset(
        "noise", train, few, few, tuple("abcdefghij"), Preprocessing((0.5,) * 3, (0.3,) * 3), "noise"
    )


def plain_step_s(teacher: Teacher) -> float:
    network, data = student(), dataset(IMAGES)
    started = time.perf_counter()
    fit(network, data, TRAINING, seed=0, targets=LiveTargets(teacher))
    return (time.perf_counter() - started) / STEPS


def search_step_s(teacher: Teacher) -> list[float]:
    """Of each group, by the second of two epochs: the first begins with the slopes of the paths."""
    settings = MixtureSearchSettings(epochs=2, warmup_epochs=0)
    times: list[float] = []
    network, data = student(), dataset(2 * IMAGES)
    search_mixtures(
        network, teacher.module, data, settings, TRAINING, seed=0,
        on_epoch=lambda *_: times.append(time.perf_counter()),
    )  # fmt: skip
    return [(second - first) / STEPS for first, second in zip(times[::2], times[1::2], strict=True)]


def main(repeats: int = 5) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher = Teacher([Member("convnet", ConvNet(3, 10, width=16, depth=3), "noise")])
    plain_step_s(teacher)
    plain, searched = [], []
    for _ in range(repeats):
        plain.append(plain_step_s(teacher))
        searched.append(search_step_s(teacher))
    ratios = [
        median(step / one for step, one in zip(steps, plain, strict=True))
        for steps in zip(*searched, strict=True)
    ]
    document = {
        "plain_step_s": round(median(plain), 4),
        "search_step_s": [round(median(each), 4) for each in zip(*searched, strict=True)],
        "ratio_by_group": [round(each, 2) for each in ratios],
        "largest_ratio": round(max(ratios), 2),
        "target": 2.5,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
