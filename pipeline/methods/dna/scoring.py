"""Scores every path of a supernet by how closely it reproduces the teacher (1911.13053, eq. 5 and 6).

A layer's BatchNorm is recalibrated on a fixed set of images that come through the layers before it, so it
depends on these alone, and paths with a common beginning share it: the paths are walked depth first, and the
features after every common beginning are computed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.errors import TeacherError
from pipeline.methods.dna.features import ScoreSet
from pipeline.methods.dna.supernet import Path, Supernet

Measure = Literal["relative-l1", "mse"]
Features = tuple[Tensor, ...]


def score_paths(
    supernet: Supernet, images: ScoreSet, *, measure: Measure = "relative-l1", recalibrate: bool = True
) -> NDArray[np.float64]:
    """The score of every path, smaller is better; its shape is ``supernet.choices``.

    ``relative-l1`` is the mean absolute difference to the teacher's features, divided by their standard
    deviation; ``mse`` is the mean squared difference. A path whose features are not finite gets infinity. The
    supernet is left as it was.

    Raises:
        TeacherError: the teacher's features at the end of the block do not vary.
    """
    _check(images)
    layers = supernet.candidates()
    scores = np.empty(supernet.choices)

    def walk(path: Path, calibration: Features, inputs: Features) -> None:
        if len(path) == len(layers):
            scores[path] = _difference(inputs, images, measure)
            return
        for index, module in enumerate(layers[len(path)]):
            walk((*path, index), *_advance(module, calibration, inputs, recalibrate))

    with torch.no_grad(), _restored([supernet]):
        walk((), images.calibration, images.inputs)
    return scores


def calibrate(modules: Sequence[nn.Module], calibration: Features) -> None:
    """Give the modules of one path, in order, the statistics of what comes through; they end in eval mode."""
    with torch.no_grad():
        for module in modules:
            calibration, _ = _advance(module, calibration, (), recalibrate=True)


def _advance(
    module: nn.Module, calibration: Features, inputs: Features, recalibrate: bool
) -> tuple[Features, Features]:
    """Features after a module; its statistics are those of ``calibration``, averaged over the batches."""
    if recalibrate:
        for norm in _norms(module):
            norm.reset_running_stats()
            norm.momentum = None
        module.train()
        calibration = tuple(module(batch) for batch in calibration)
    module.eval()
    return calibration, tuple(module(batch) for batch in inputs)


def _difference(outputs: Features, images: ScoreSet, measure: Measure) -> float:
    total = 0.0
    for output, target in zip(outputs, images.targets, strict=True):
        difference = output.double() - target.double()
        total += float((difference.abs() if measure == "relative-l1" else difference.square()).sum())
    mean = total / sum(target.numel() for target in images.targets)
    score = mean / images.sigma if measure == "relative-l1" else mean
    return score if math.isfinite(score) else math.inf


@contextmanager
def _restored(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put back modes, and the statistics and momentum of every BatchNorm."""
    modes = [(each, each.training) for module in modules for each in module.modules()]
    norms = [
        (norm, norm.momentum, [buffer.clone() for buffer in norm.buffers()])
        for module in modules
        for norm in _norms(module)
    ]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for norm, momentum, buffers in norms:
            norm.momentum = momentum
            for buffer, kept in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(kept)


def _norms(module: nn.Module) -> list[_BatchNorm]:
    return [each for each in module.modules() if isinstance(each, _BatchNorm)]


def _check(images: ScoreSet) -> None:
    if not images.sigma > 0:
        raise TeacherError(
            "a block of the teacher cannot be reproduced",
            why=f"the standard deviation of its features over the score images is {images.sigma}",
            fix="use a teacher that was trained, or cut it elsewhere",
        )
