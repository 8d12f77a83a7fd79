"""What the short trainings of NAS-Bench-201 cost on this machine: core-seconds by multiply-accumulates."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from cell_networks import CellNetworks
from cell_space import EDGES, Cell, cell
from torch import nn

CELLS = 5
"""In each stage of the benchmark's networks."""
IMAGES = 12 * 25_000
"""Images of a short training: 12 epochs of half of CIFAR-10 (2001.00326)."""
_BATCH, _REPEATS = 64, 3


def core_seconds(macs: np.ndarray, kept: Path) -> np.ndarray:
    """Of a short training of each network, as measured once on a few and kept in a file.

    Args:
        macs: multiply-accumulates of an image, shape (n,).
        kept: JSON file with ``a`` and ``b`` of ``a + b * macs`` seconds an image; made where it is not there.
    """
    if not kept.exists():
        measured = [(macs[each.number], seconds_per_image(each)) for each in samples()]
        slope, constant = np.polyfit(*zip(*measured, strict=True), 1)
        kept.write_text(json.dumps({"a": constant, "b": slope, "measured": measured}, default=float) + "\n")
    line = json.loads(kept.read_text())
    return IMAGES * (line["a"] + line["b"] * macs)


def samples() -> list[Cell]:
    """Cells with ever more convolutions."""
    return [
        cell([operation] * count + ["skip_connect"] * (len(EDGES) - count))
        for operation, count in (
            ("nor_conv_1x1", 3),
            ("nor_conv_3x3", 2),
            ("nor_conv_3x3", 4),
            ("nor_conv_3x3", 6),
        )
    ]


def seconds_per_image(architecture: Cell) -> float:
    """Of a training step with one thread; process time."""
    torch.set_num_threads(1)
    space = CellNetworks()
    blocks = [
        block for block in space.blocks(architecture) for _ in range(CELLS if block.kind == "cell" else 1)
    ]
    network = nn.Sequential(*map(space.build_block, blocks))
    images, labels = torch.rand(_BATCH, 3, 32, 32), torch.randint(0, 10, (_BATCH,))
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    seconds = []
    for _ in range(1 + _REPEATS):
        began = time.process_time()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        seconds.append((time.process_time() - began) / _BATCH)
    return statistics.median(seconds[1:])
