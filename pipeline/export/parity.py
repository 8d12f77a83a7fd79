"""How far an artifact's outputs are from torch's, on real inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from devices.requests import predict
from devices.target import Target
from pipeline.errors import ParityError
from pipeline.export.base import Format

_BATCH = 64


@dataclass(frozen=True)
class Parity:
    """Largest differences between an artifact and torch.

    Attributes:
        max_abs: largest absolute difference of a logit over all samples.
        max_rel: largest over samples of (largest absolute difference / largest absolute logit of torch).
        samples: number of samples compared.
        tolerance: the bound that ``max_abs`` keeps.
    """

    max_abs: float
    max_rel: float
    samples: int
    tolerance: float


def check_parity(
    model: nn.Module,
    artifact: Path,
    fmt: Format,
    inputs: NDArray[np.float32],
    target: Target,
    *,
    tolerance: float = 1e-4,
) -> Parity:
    """Run the artifact on its target over real inputs, and compare with the model in evaluation mode.

    Args:
        model: what was exported; its mode is restored.
        artifact: the exported or compiled file.
        fmt: its format, which decides the layout of its input.
        inputs: ``(N, C, H, W)`` float32, preprocessed.
        target: where the artifact runs.
        tolerance: largest absolute difference of a logit that is allowed.

    Raises:
        ParityError: a difference is larger, an output is not finite, or the outputs have another width.
        MeasurementError: the artifact could not be run.
    """
    expected = _logits(model, inputs)
    in_layout = inputs if fmt.layout == "NCHW" else inputs.transpose(0, 2, 3, 1)
    actual = predict(artifact, np.ascontiguousarray(in_layout), target)
    return compare(expected, actual, tolerance, name=f"{artifact.name} on {target}")


def compare(
    expected: NDArray[np.float32], actual: NDArray[np.float32], tolerance: float, *, name: str
) -> Parity:
    """Compare logits ``(N, classes)`` of torch and of the artifact ``name``.

    Raises:
        ParityError: see ``check_parity``.
    """
    if expected.shape != actual.shape:
        raise ParityError(
            f"{name} does not answer like torch",
            why=f"its outputs are {actual.shape}, those of torch {expected.shape}",
            fix="check that the artifact was exported from this model",
        )
    with np.errstate(invalid="ignore"):
        difference = np.abs(expected.astype(np.float64) - actual).max(axis=1)
    # NaN compares false with everything, so it must be looked for.
    difference = np.where(np.isfinite(difference), difference, np.inf)
    worst = int(difference.argmax())
    if difference[worst] > tolerance:
        raise ParityError(
            f"{name} differs from torch by {difference[worst]:.3g}, more than {tolerance:g}",
            why=f"worst is sample {worst}: torch {_shown(expected[worst])}, artifact {_shown(actual[worst])}",
            fix="check that the model is finite in evaluation mode and its export is of these weights",
        )
    scale = np.maximum(np.abs(expected).max(axis=1), np.finfo(np.float32).tiny)
    return Parity(float(difference[worst]), float((difference / scale).max()), len(expected), tolerance)


def _logits(model: nn.Module, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    training = model.training
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    model.eval()
    try:
        with torch.inference_mode():
            batches = [
                model(torch.from_numpy(inputs[start : start + _BATCH]).to(device)).cpu().numpy()
                for start in range(0, len(inputs), _BATCH)
            ]
    finally:
        model.train(training)
    return np.concatenate(batches)


def _shown(logits: NDArray[np.float32]) -> str:
    return np.array2string(logits[:5], precision=5, threshold=5)
