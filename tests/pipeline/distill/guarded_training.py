"""Trains the network and on the batches that end torch 2.13 when they are not guarded; run as a process."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.distill.settings import TrainingSettings
from pipeline.distill.training import fit
from pipeline.teachers.convnet import ConvNet


def train(checkpoint: Path, *, epochs: int, die_after: int | None) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (57, 32, 32, 3), dtype=np.uint8)
    split = Split(images, np.arange(57, dtype=np.int64) % 2)
    dataset = Dataset("noise", split, split, split, ("a", "b"), Preprocessing((0.5,), (0.3,)), "digest")
    torch.set_num_threads(2)

    def killed(done: int, total: int, record: object) -> None:
        if done == die_after:
            os.kill(os.getpid(), signal.SIGSEGV)

    fit(
        ConvNet(3, 2, width=8, depth=1),
        dataset,
        TrainingSettings(epochs=epochs, batch_size=57),
        seed=0,
        checkpoint=checkpoint,
        on_epoch=killed,
        what="training the teacher",
        tell=print,
    )
    print("trained", torch.get_num_threads())


if __name__ == "__main__":
    train(Path(sys.argv[1]), epochs=int(sys.argv[2]), die_after=int(sys.argv[3]) if sys.argv[3:] else None)
