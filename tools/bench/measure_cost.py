"""What measuring costs: seconds per block for a batch of small convolutions, on both runtimes of this host.

    python tools/bench/measure_cost.py [--blocks 40] [--repeat 1]

Prints one JSON document. With ``--repeat`` above 1 the batch is measured again, and the largest relative
change of a headline between repeats is reported too: how far a measurement can be reproduced.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import litert_torch
import torch

from devices.measure import Job, measure, probe
from devices.measurement import Measurement, MeasuringProtocol
from devices.target import Target

SHAPES = ((16, 8), (32, 8), (24, 16), (48, 4))
"""Channels and side of the inputs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    protocol = MeasuringProtocol()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for runtime, suffix in (("onnxruntime", ".onnx"), ("litert", ".tflite")):
            with contextlib.redirect_stdout(sys.stderr):
                artifacts = [export(Path(folder), shape, suffix) for shape in SHAPES]
            jobs = [Job(str(n), artifacts[n % len(artifacts)]) for n in range(arguments.blocks)]
            results.append(cost(jobs, Target("host", runtime), protocol, arguments.repeat))
    print(
        json.dumps({"blocks": arguments.blocks, "protocol": asdict(protocol), "targets": results}, indent=2)
    )


def export(folder: Path, shape: tuple[int, int], suffix: str) -> Path:
    """One inverted-residual block as a file of either format."""
    channels, side = shape
    wide = 4 * channels
    block = torch.nn.Sequential(
        torch.nn.Conv2d(channels, wide, 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
        torch.nn.ReLU(),
        torch.nn.Conv2d(wide, channels, 1),
    ).eval()
    path = folder / f"{channels}-{side}{suffix}"
    example = (torch.zeros(1, channels, side, side),)
    if suffix == ".onnx":
        torch.onnx.export(block, example, path, dynamo=True, verbose=False, external_data=False)
    else:
        litert_torch.convert(block, example).export(str(path))
    return path


def cost(jobs: list[Job], target: Target, protocol: MeasuringProtocol, repeat: int) -> dict[str, object]:
    """Seconds per block, verdicts, and the change between repeats."""
    probe(target)
    seconds, headlines, verdicts = [], [], []
    for _ in range(repeat):
        start = time.monotonic()
        outcomes = measure(jobs, target, protocol)
        seconds.append((time.monotonic() - start) / len(jobs))
        measured = [outcome for outcome in outcomes.values() if isinstance(outcome, Measurement)]
        headlines.append([outcome.latency.value_ns for outcome in measured])
        verdicts += [str(outcome.verdict) for outcome in measured]
    changes = [max(values) / min(values) - 1 for values in zip(*headlines, strict=True)]
    return {
        "target": str(target),
        "seconds_per_block": round(statistics.median(seconds), 4),
        "verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "change_between_repeats": {
            "median": round(statistics.median(changes), 4),
            "largest": round(max(changes), 4),
        },
        "latency_us": sorted({round(value / 1000, 1) for value in headlines[0]}),
    }


if __name__ == "__main__":
    main()
