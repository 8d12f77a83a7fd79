"""What a step of a selection costs beside the same step without gates.

    python tools/bench/subgraph_gates.py [--depth 56] [--batch 128] [--steps 40] > gates.json

Steps with and without gates alternate in random order, so that drift of the machine falls on both. Each is a
whole step: forward, divergence to stored logits, backward, SGD, and with gates their proximal step and the
prices of all parts.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from pipeline.distill.losses.settings import SoftTargetsSettings
from pipeline.distill.objective import Objective
from pipeline.methods.subgraph.costs import Costs
from pipeline.methods.subgraph.gates import Gates
from pipeline.methods.subgraph.structures import find_structures
from pipeline.methods.subgraph.units import describe_teacher
from pipeline.spaces.base import Architecture
from pipeline.spaces.teacher.space import TeacherSpace
from pipeline.teachers.resnet import resnet_cifar

CLASSES, SHAPE = 10, (3, 32, 32)


class Stored:
    """Logits that were stored before."""

    def __init__(self, count: int) -> None:
        self._logits = torch.randn(1, count, CLASSES)

    def __call__(self, images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """As ``StoredTargets``."""
        return self._logits[:, index]

    def network(self) -> nn.Module:
        """None."""
        raise ValueError("only logits are stored")


def main() -> None:
    """Print the ratio of the medians, and the quartiles of the ratios of neighbouring steps, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--depth", type=int, default=56)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    plain = resnet_cifar(arguments.depth, CLASSES)
    structures = find_structures(plain, SHAPE)
    gated = copy.deepcopy(plain)
    images = torch.randn(arguments.batch, *SHAPE).to(memory_format=torch.channels_last)
    index, labels = torch.arange(arguments.batch), torch.zeros(arguments.batch, dtype=torch.int64)
    objective = Objective((SoftTargetsSettings(weight=1),), Stored(arguments.batch))
    space = TeacherSpace(describe_teacher(plain, SHAPE, structures, most_blocks=300), SHAPE, CLASSES)

    def shares(architecture: Architecture) -> dict[str, float]:
        return {"macs": sum(space.cost(block).macs for block in space.blocks(architecture)) / 1e6}

    costs = Costs(space, shares, lambda block: float(space.cost(block).macs))
    gates = Gates(gated, space.config.structures)
    ones = {each.name: torch.ones(each.count) for each in structures}
    least = {each.name: min(2, each.count) for each in structures}

    def move() -> None:
        counts = {name: len(parts) for name, parts in gates.kept().items()}
        costs.excess(counts)
        penalties = {name: value * ones[name] for name, value in costs.penalties(counts).items()}
        gates.proximal_step(0.0, penalties, least)

    def step(network: nn.Module, optimizer: torch.optim.Optimizer, after: Callable[[], None]) -> float:
        began = time.perf_counter()
        loss = objective(network(images), images, index, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        after()
        return time.perf_counter() - began

    kinds: dict[str, Callable[[], float]] = {}
    for name, network, after in (("plain", plain, lambda: None), ("gated", gated, move)):
        network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        kinds[name] = lambda n=network, o=optimizer, a=after: step(n, o, a)  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    order, generator = list(kinds), random.Random(0)
    for name in order:
        kinds[name]()
    for _ in range(arguments.steps):
        generator.shuffle(order)
        for name in order:
            taken[name].append(kinds[name]())
    medians_s = {name: statistics.median(seconds) for name, seconds in taken.items()}
    ratios = [gated_s / plain_s for gated_s, plain_s in zip(taken["gated"], taken["plain"], strict=True)]
    document = {
        "network": f"ResNet-{arguments.depth}",
        "structures": len(structures),
        "batch": arguments.batch,
        "steps": arguments.steps,
        "median_ms": {name: 1000 * seconds for name, seconds in medians_s.items()},
        "ratio_of_medians": medians_s["gated"] / medians_s["plain"],
        "quartiles_of_paired_ratios": statistics.quantiles(ratios, n=4),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
