"""What bf16 takes of fp32's time in training, one thread: ``python tools/bench/precision.py``, as JSON.

A step of a ResNet-56, whose convolutions are dense, and of the largest mobile student at 32x32, with
depthwise ones; and an evaluation of the ResNet, which is what a teacher does in each step. Both precisions in
turn; ``ratio`` is the median of the pairs.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from pipeline.spaces.mobile.space import MobileSpace
from pipeline.teachers.resnet import resnet_cifar

IMAGES, PAIRS = 128, 5


def step(network: nn.Module, images: torch.Tensor) -> None:
    network.train()
    network(images).float().square().mean().backward()
    network.zero_grad()


def evaluation(network: nn.Module, images: torch.Tensor) -> None:
    network.eval()
    with torch.no_grad():
        network(images)


def ratio(work: Callable[[nn.Module, torch.Tensor], None], network: nn.Module) -> float:
    network.to(memory_format=torch.channels_last)
    images = torch.randn(IMAGES, 3, 32, 32).contiguous(memory_format=torch.channels_last)

    def seconds(bf16: bool) -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            work(network, images)
        return time.perf_counter() - started

    for bf16 in (True, False):
        seconds(bf16)
    return round(statistics.median(seconds(True) / seconds(False) for _ in range(PAIRS)), 2)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = MobileSpace.from_config(None, (3, 32, 32), 10)
    found = {
        "step of a ResNet-56": ratio(step, resnet_cifar(depth=56)),
        "evaluation of a ResNet-56": ratio(evaluation, resnet_cifar(depth=56)),
        "step of the largest mobile student": ratio(step, space.build(space.reference())),
    }
    print(json.dumps({"ratio": found, "processor": torch.backends.cpu.get_cpu_capability()}, indent=1))


if __name__ == "__main__":
    main()
