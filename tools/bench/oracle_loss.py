"""What a step with the oracle loss costs beside one with soft targets of the same ensemble, logits stored.

    python tools/bench/oracle_loss.py [--members 5] [--batch 128] [--steps 200] > oracle.json

Steps of the two losses alternate, so that drift of the machine falls on both. Each step is a whole one:
forward, loss, backward, SGD, on a ResNet-20 of noise images of 32x32.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

import torch

from pipeline.distill.losses.settings import (
    LabelsSettings,
    LossSettings,
    OracleSettings,
    SoftTargetsSettings,
)
from pipeline.distill.objective import Objective
from pipeline.teachers.resnet import resnet_cifar

CLASSES = 10


class Stored:
    """Logits of random members, right on about 70 % of the images."""

    def __init__(self, members: int, labels: torch.Tensor) -> None:
        logits = torch.randn(members, len(labels), CLASSES)
        right = torch.nn.functional.one_hot(labels, CLASSES) * (torch.rand(members, len(labels), 1) < 0.7)
        self.logits = logits + 8.0 * right

    def __call__(self, images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """As ``StoredTargets``."""
        return self.logits[:, index]

    def network(self) -> torch.nn.Module:
        """None."""
        raise ValueError("only logits are stored")


def main() -> None:
    """Print the ratio of the medians, and the quartiles of the ratios of neighbouring steps, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randn(arguments.batch, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (arguments.batch,))
    targets, index = Stored(arguments.members, labels), torch.arange(arguments.batch)
    network = resnet_cifar(20, CLASSES).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    kinds: dict[str, LossSettings] = {
        "average": SoftTargetsSettings(weight=0.9),
        "oracle": OracleSettings(weight=0.9),
    }
    objectives = {
        name: Objective((LabelsSettings(weight=0.1), kind), targets) for name, kind in kinds.items()
    }

    def step(objective: Objective) -> float:
        began = time.perf_counter()
        loss = objective(network(images), images, index, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return time.perf_counter() - began

    for objective in objectives.values():
        step(objective)
    taken: dict[str, list[float]] = {name: [] for name in objectives}
    order, generator = list(objectives), random.Random(0)
    for _ in range(arguments.steps):
        generator.shuffle(order)
        for name in order:
            taken[name].append(step(objectives[name]))
    medians_s = {name: statistics.median(seconds) for name, seconds in taken.items()}
    ratios = [oracle / average for oracle, average in zip(taken["oracle"], taken["average"], strict=True)]
    document = {
        "members": arguments.members,
        "batch": arguments.batch,
        "steps": arguments.steps,
        "median_ms": {name: 1000 * seconds for name, seconds in medians_s.items()},
        "ratio_of_medians": medians_s["oracle"] / medians_s["average"],
        "quartiles_of_paired_ratios": statistics.quantiles(ratios, n=4),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
