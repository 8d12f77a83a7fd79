"""What a training gains by keeping the memory that its steps free, as JSON: ``kept_memory.py``.

Steps of 128 images of 32x32, one thread, of networks of the mobile space and of a ResNet-56, in a process
that keeps what it frees and in one that does not, in turn. ``ratio`` is the median of the pairs of processor
seconds; the peaks are of the whole process.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext

import torch

from pipeline.distill.allocator import freed_memory_kept
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.teachers.resnet import resnet_cifar

IMAGES, STEPS, PAIRS = 128, 5, 3
NETWORKS = ("mobile 0", "mobile 1", "mobile 2", "ResNet-56")


def steps(name: str, keep: bool) -> tuple[float, float]:
    """Processor seconds of a step, and the peak of memory in megabytes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind, _, number = name.partition(" ")
    space = MobileSpace.from_config(None, (3, 32, 32), 10)
    network = (
        space.build(space.sample(random.Random(int(number)))) if kind == "mobile" else resnet_cifar(depth=56)
    )
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(IMAGES, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    seconds = []
    with freed_memory_kept() if keep else nullcontext():
        for _ in range(STEPS):
            began = time.process_time()
            network(images).square().mean().backward()
            network.zero_grad()
            seconds.append(time.process_time() - began)
    return statistics.median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Print one JSON document."""
    if len(sys.argv) > 1:
        print(json.dumps(steps(sys.argv[1], sys.argv[2] == "keep")))
        return
    document = {}
    for name in NETWORKS:
        pairs = []
        for _ in range(PAIRS):
            found = {}
            for way in ("free", "keep"):
                command = [sys.executable, __file__, name, way]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[way] = json.loads(done.stdout)
            pairs.append(found)
        document[name] = {
            "ratio": round(statistics.median(each["keep"][0] / each["free"][0] for each in pairs), 2),
            "peak_mb": {way: round(max(each[way][1] for each in pairs)) for way in ("free", "keep")},
        }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
