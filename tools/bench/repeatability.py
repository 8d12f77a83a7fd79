"""How well a headline repeats: 40 pairs of measurements of one model, the two of a pair apart in time.

python tools/bench/repeatability.py [PAIRS] > repeatability.json

Prints, over all pairs and over those where both are valid, the share that agree within 2 %, and how many of
all runs are valid. For the choice of the headline, the same for other quantiles of the launches' samples.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import tempfile
from pathlib import Path

from models import make_models

from devices.measurement import Measurement, MeasuringProtocol, Verdict, quantile
from devices.measuring import Job, measure
from devices.target import Target

AGREE = 0.02
LEVELS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75)


def estimate(measurement: Measurement, level: float) -> float:
    return quantile([launch.quantile_ns(level) for launch in measurement.counted], 0.5)


def mean(measurement: Measurement) -> float:
    samples = [sample for launch in measurement.launches for sample in launch.samples_ns]
    return sum(samples) / len(samples)


def difference(one: float, other: float) -> float:
    return abs(one - other) / min(one, other)


def share(differences: list[float]) -> float | None:
    return sum(value <= AGREE for value in differences) / len(differences) if differences else None


def main(pairs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = make_models(Path(folder))
        cases = [(runtime, name) for runtime in files for name in files[runtime]]
        chosen = list(itertools.islice(itertools.cycle(cases), pairs))
        results: list[list[Measurement]] = [[] for _ in chosen]
        for number in range(2):
            order = list(enumerate(chosen))
            random.Random(number).shuffle(order)
            for done, (index, (runtime, name)) in enumerate(order):
                job = Job(name, files[runtime][name])
                outcome = measure([job], Target("host", runtime), MeasuringProtocol())[name]
                assert isinstance(outcome, Measurement), outcome
                results[index].append(outcome)
                print(f"{number + 1}: {done + 1}/{pairs} {outcome.latency}", file=sys.stderr)
    runs = [each for pair in results for each in pair]
    valid = [pair for pair in results if all(each.verdict is Verdict.VALID for each in pair)]
    headline = [difference(*(each.latency.value_ns for each in pair)) for pair in valid]
    document = {
        "pairs": pairs,
        "runs_valid_share": sum(each.verdict is Verdict.VALID for each in runs) / len(runs),
        "pairs_valid": len(valid),
        "valid_pairs_within_2_percent_share": share(headline),
        "valid_pairs_worst_difference": max(headline, default=None),
        "all_pairs_within_2_percent_share_by_estimator": {
            **{
                f"quantile {level:g}": share(
                    [difference(*(estimate(each, level) for each in pair)) for pair in results]
                )
                for level in LEVELS
            },
            "mean": share([difference(*(mean(each) for each in pair)) for pair in results]),
        },
        "all_pairs_median_difference_by_estimator": {
            **{
                f"quantile {level:g}": quantile(
                    [difference(*(estimate(each, level) for each in pair)) for pair in results], 0.5
                )
                for level in LEVELS
            },
            "mean": quantile([difference(*(mean(each) for each in pair)) for pair in results], 0.5),
        },
        "detail": [
            {
                "runtime": runtime,
                "model": name,
                "headlines_ms": [each.latency.value_ns / 1e6 for each in pair],
                "launches": [len(each.launches) for each in pair],
                "verdicts": [each.verdict.value for each in pair],
                "reasons": [[reason.code for reason in each.reasons] for each in pair],
            }
            for (runtime, name), pair in zip(chosen, results, strict=True)
        ],
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
