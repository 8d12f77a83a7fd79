"""How well a new device is predicted from few samples: leave one device out of NAS-Bench-201.

python tools/bench/few_shot.py [SEEDS] > few_shot.json
python tools/bench/few_shot.py ceiling > ceiling.json

The second says how well two thirds of a device's own measurements predict the rest, and whether devices agree
on what is left (needs scikit-learn).

Reads $LATHE_SHARED_DATA/nasbench201/nasbench201.npz. A GPU's batch sizes are left out together; rows below a
fifth of the device's median are failed runs and are removed; every other network is the test set, untrimmed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from latency_db.few_shot import DeviceBasis

SHARED = Path(os.environ.get("LATHE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
COUNTS = (10, 20)


def live_operations(ops: np.ndarray) -> np.ndarray:
    """The operations with those that reach no output, or that no input reaches, set to none (0)."""
    e01, e02, e12, e03, e13, e23 = (ops[:, edge] != 0 for edge in range(6))
    into2 = e02 | (e01 & e12)
    from1 = e13 | (e12 & e23)
    live = np.stack([e01 & from1, e02 & e23, e01 & e12 & e23, e03, e01 & e13, e23 & into2], axis=1)
    return np.where(live, ops, 0)


def longest_paths(ops: np.ndarray) -> np.ndarray:
    """Longest path from input to output: all operations, 3x3 convolutions as three, 3x3 convolutions only."""
    paths = []
    for cost in ((-1e3, 0, 1, 1, 1), (-1e3, 0, 1, 3, 1), (-1e3, 0, 0, 1, 0)):
        c = np.array(cost, dtype=float)[ops]
        second = np.maximum(c[:, 1], c[:, 0] + c[:, 2])
        paths.append(np.maximum.reduce([c[:, 3], c[:, 0] + c[:, 4], second + c[:, 5], np.full(len(c), -1.0)]))
    return np.stack(paths, axis=1)


def describe(ops: np.ndarray, macs: np.ndarray) -> np.ndarray:
    """MACs, and of the cell and of its live part: operation per edge, counts, longest paths."""
    parts = [np.log(macs)[:, None]]
    for cell in (ops, live_operations(ops)):
        counts = np.stack([(cell == op).sum(axis=1) for op in range(5)], axis=1).astype(float)
        parts += [np.hstack([cell == op for op in range(5)]).astype(float), counts**2, np.log1p(counts)]
        parts.append(longest_paths(cell))
    return np.hstack(parts)


def ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def group_of(device: str) -> str:
    return device.rsplit("_", 1)[0] if device.startswith(("1080ti", "2080ti", "titan")) else device


def sample(basis: DeviceBasis, values: np.ndarray, failed: np.ndarray, count: int) -> np.ndarray:
    """Chosen samples that ran: the next best is measured in place of one that failed."""
    index = basis.choose(count)
    while failed[index].sum():
        kept = (~failed[index]).sum()
        if kept == count:
            break
        more = basis.choose_next(index, np.where(failed[index], np.nan, values[index]), count - kept)
        index = np.concatenate([index, more])
    return index[~failed[index]]


def score(basis: DeviceBasis, index: np.ndarray, values: np.ndarray, failed: np.ndarray) -> dict[str, float]:
    estimate, low, high = basis.predict(index, values[index])
    test = ~failed
    test[index] = False
    error = np.abs(estimate[test] / values[test] - 1)
    return {
        "spearman": float(np.corrcoef(ranks(estimate[test]), ranks(values[test]))[0, 1]),
        "within_5_percent": float((error <= 0.05).mean()),
        "within_10_percent": float((error <= 0.10).mean()),
        "coverage_90": float(((values[test] >= low[test]) & (values[test] <= high[test])).mean()),
        "median_width": float(np.median(high[test] / low[test])),
    }


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def load() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Features, latencies and device names."""
    data = np.load(SHARED / "nasbench201" / "nasbench201.npz")
    features = describe(data["arch_ops"].astype(int), data["macs_cifar10"].astype(float))
    return features, data["latency_ms"], [str(name) for name in data["device"]]


def ceiling() -> None:
    """Gradient boosting on the device itself, in three folds, and correlations of its residuals."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    features, latency, devices = load()
    residuals = np.full(latency.shape, np.nan)
    per_device: dict[str, dict[str, float]] = {}
    for column, device in enumerate(devices):
        values = latency[:, column]
        ran = np.flatnonzero(values >= np.median(values) / 5)
        logs, fold = np.log(values[ran]), np.random.default_rng(0).permutation(len(ran)) % 3
        found = np.empty(len(ran))
        for out in range(3):
            model = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.08, max_leaf_nodes=24)
            model.fit(features[ran[fold != out]], logs[fold != out])
            found[fold == out] = model.predict(features[ran[fold == out]])
        residuals[ran, column] = logs - found
        per_device[device] = {
            "spearman": round(float(np.corrcoef(ranks(found), ranks(logs))[0, 1]), 4),
            "within_10_percent": round(float((np.abs(np.expm1(found - logs)) <= 0.10).mean()), 4),
        }
        print(device, per_device[device], file=sys.stderr)
    limit = 3 * np.nanstd(residuals, axis=0)
    clipped = np.ma.masked_invalid(np.clip(residuals, -limit, limit))
    agreement = np.abs(np.asarray(np.ma.corrcoef(clipped, rowvar=False)))
    groups = np.array([group_of(device) for device in devices])
    apart = groups[:, None] != groups
    pairs = np.argwhere(np.triu(apart & (agreement > 0.2)))
    document = {
        "mean": mean(list(per_device.values())),
        "residual_correlation_between_groups": {
            "median": round(float(np.median(agreement[apart])), 3),
            "above_0.2": [(devices[one], devices[other]) for one, other in pairs],
        },
        "devices": per_device,
    }
    json.dump(document, sys.stdout, indent=1)


def main(seeds: int) -> None:
    started = time.perf_counter()
    features, latency, devices = load()
    groups = [group_of(name) for name in devices]
    bases: dict[str, DeviceBasis] = {}
    per_device: dict[str, dict[str, dict[str, float]]] = {}
    for column, device in enumerate(devices):
        group = groups[column]
        if group not in bases:
            kept = [other for other in range(len(devices)) if groups[other] != group]
            bases[group] = DeviceBasis(features, latency[:, kept], [groups[other] for other in kept])
        values = latency[:, column]
        failed = values < np.median(values) / 5
        ran = np.flatnonzero(~failed)
        rows: dict[str, dict[str, float]] = {}
        for count in COUNTS:
            chosen = sample(bases[group], values, failed, count)
            rows[f"chosen_{count}"] = mean([score(bases[group], chosen, values, failed)])
            draws = [
                np.random.default_rng([seed, column]).choice(ran, count, replace=False)
                for seed in range(seeds)
            ]
            rows[f"random_{count}"] = mean([score(bases[group], draw, values, failed) for draw in draws])
        alone = bases.setdefault("", DeviceBasis(features, np.empty((len(features), 0))))
        draws = [np.random.default_rng([seed, column]).choice(ran, 100, False) for seed in range(seeds)]
        rows["no_source_100"] = mean([score(alone, draw, values, failed) for draw in draws])
        per_device[device] = rows
        print(device, {name: list(row.values()) for name, row in rows.items()}, file=sys.stderr)
    names = next(iter(per_device.values()))
    document = {
        "seeds": seeds,
        "seconds": round(time.perf_counter() - started, 1),
        "mean": {name: mean([rows[name] for rows in per_device.values()]) for name in names},
        "least_coverage_90": {
            name: min(rows[name]["coverage_90"] for rows in per_device.values()) for name in names
        },
        "devices": per_device,
    }
    json.dump(document, sys.stdout, indent=1)


if __name__ == "__main__":
    if sys.argv[1:] == ["ceiling"]:
        ceiling()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
