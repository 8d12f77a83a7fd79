"""What intervals of one, two or three batches cover: ``python tools/bench/batches.py [FOLDER]``, as JSON.

Nothing is measured: results of ``tools/bench/own_device.py`` are looked at again, those of FOLDER, or else
those kept in docs/results/own-device. Each has the networks in the order in which they were measured, in
batches of 64, and once more after that. 36 of the networks of one, two or three batches stand for those of
the fit: their median error is taken off as a fit does, and an interval is made of what remains, where each
batch has the median of the other ones taken off. ``covered`` is the share of the networks of another batch
that are inside the interval, and ``half_width`` its own, both in the mean over all choices of batches and
``DRAWS`` draws of networks; ``least_tenth`` is the share that nine of ten such cases exceed.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_db.models import jackknife_factor
from latency_db.tables import BATCH

KEPT = Path(__file__).resolve().parents[2] / "docs" / "results" / "own-device"
FITTED = 36
COVERAGE = 0.9
DRAWS = 40

Floats = NDArray[np.float64]


def errors_by_batch(networks: list[dict[str, Any]]) -> list[Floats]:
    """Log ratios of measured to predicted latencies corrected to the table's canary."""

    def errors(latency: str, slowdown: str) -> Floats:
        return np.log([each[latency] / each[slowdown] / each["predicted_ns"] for each in networks])

    passes = errors("measured_ns", "slowdown"), errors("repeated_ns", "repeated_slowdown")
    return [each[start : start + BATCH] for each in passes for start in range(0, len(networks), BATCH)]


def left_out(batches: list[Floats]) -> Floats:
    """How far each error is from the median of the other batches, or of the only one."""
    scores = []
    for number, batch in enumerate(batches):
        others = [each for other, each in enumerate(batches) if other != number] or [batch]
        scores.append(np.abs(batch - np.median(np.concatenate(others))))
    return np.concatenate(scores)


def from_batches(batches: list[Floats], count: int, generator: np.random.Generator) -> dict[str, float]:
    covered, half_widths = [], []
    for others in itertools.combinations(range(len(batches)), count):
        for tested in set(range(len(batches))) - set(others):
            for _ in range(DRAWS):
                drawn = [generator.permutation(batches[other])[: FITTED // count] for other in others]
                middle = np.median(np.concatenate(drawn))
                factor, _ = jackknife_factor(left_out(drawn), COVERAGE)
                covered.append(float((np.abs(batches[tested] - middle) <= np.log(factor)).mean()))
                half_widths.append(factor - 1)
    return {
        "covered": round(float(np.mean(covered)), 3),
        "least_tenth": round(float(np.quantile(covered, 0.1)), 3),
        "half_width": round(float(np.mean(half_widths)), 4),
    }


def main(folder: Path) -> None:
    rows = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_bytes())
        batches = errors_by_batch(result["networks"])
        generator = np.random.default_rng(0)
        shares = {str(count): from_batches(batches, count, generator) for count in (1, 2, 3)}
        rows.append({"input": result["input"], "target": result["target"], "batches": shares})
    print(json.dumps({"claimed": COVERAGE, "results": rows}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else KEPT)
