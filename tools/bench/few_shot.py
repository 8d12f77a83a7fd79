"""How well a new device is predicted from few samples: leave one device out of NAS-Bench-201.

python tools/bench/few_shot.py [SEEDS] > few_shot.json
python tools/bench/few_shot.py ceiling > ceiling.json

The first leaves out one machine at a time, then a whole kind: GPUs, servers, phones, boards, accelerators. A
plain ridge gets the same random samples. The second says how well two thirds of a device's own measurements
predict the rest, and whether devices agree on what is left (needs scikit-learn).

Reads nasbench201.npz and two_more_devices.npz in $LATHE_SHARED_DATA/nasbench201. A GPU's batch sizes are left
out together; rows below a fifth of the device's median are failed runs and are removed; all other networks
are the test set, untrimmed.
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


def kind_of(device: str) -> str:
    kinds = {"gold": "server", "silver": "server", "raspi4": "board", "eyeriss": "accelerator"}
    kinds |= dict.fromkeys(("essential", "pixel3", "samsung"), "phone")
    return kinds.get(device.split("_", maxsplit=1)[0], "GPU")


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


class Ridge:
    """The plain way: the mean of the smoothed known devices, their components, and a ridge on the samples."""

    PENALTIES = np.geomspace(1e-4, 1.0, 13)

    def __init__(self, features: np.ndarray, source_ms: np.ndarray, groups: list[str]) -> None:
        scaled = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-9)
        design = np.hstack([np.ones((len(scaled), 1)), scaled])
        smooth = np.empty(source_ms.shape)
        for column, times in enumerate(source_ms.T):
            ran = times >= np.median(times) / 5
            gram = design[ran].T @ design[ran] + 10 * np.eye(design.shape[1])
            smooth[:, column] = design @ np.linalg.solve(gram, design[ran].T @ np.log(times[ran]))
        smooth -= smooth.mean(axis=0)
        share = 1 / np.array([groups.count(group) for group in groups])
        self._mean = smooth @ (share / share.sum())
        apart = (smooth - self._mean[:, None]) * np.sqrt(share / share.sum())
        left, spread, _ = np.linalg.svd(apart, full_matrices=False)
        # Each component in units of its spread over devices, and the mean's own slope.
        self._design = np.column_stack([self._mean, (left * spread)[:, spread > 1e-2 * spread[0]]])

    def predict(self, index: np.ndarray, sample_ms: np.ndarray) -> np.ndarray:
        """Estimates (n_arch,); the penalty is that of the least leave-one-out error."""
        target = np.log(sample_ms) - self._mean[index]
        rows = self._design[index]
        centred = rows - rows.mean(axis=0)
        best = (np.inf, self._mean)
        for penalty in self.PENALTIES:
            inverse = np.linalg.inv(centred.T @ centred + penalty * np.eye(rows.shape[1]))
            weights = inverse @ centred.T @ (target - target.mean())
            level = target.mean() - rows.mean(axis=0) @ weights
            leverage = 1 / len(rows) + np.einsum("ij,jk,ik->i", centred, inverse, centred)
            error = float(np.mean(((target - rows @ weights - level) / (1 - leverage)) ** 2))
            best = min(best, (error, self._mean + self._design @ weights + level), key=lambda each: each[0])
        return np.asarray(np.exp(best[1]))


def score(basis: DeviceBasis, index: np.ndarray, values: np.ndarray, failed: np.ndarray) -> dict[str, float]:
    estimate, low, high = basis.predict(index, values[index])
    test = ~failed
    test[index] = False
    return accuracy(estimate[test], values[test]) | {
        "coverage_90": float(((values[test] >= low[test]) & (values[test] <= high[test])).mean()),
        "median_width": float(np.median(high[test] / low[test])),
        "explained": float(basis.explain(index, values[index]).is_good),
    }


def accuracy(estimate: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Ranks, shares within 5 and 10 %, and the level: the median of estimated over measured."""
    error = np.abs(estimate / values - 1)
    return {
        "spearman": float(np.corrcoef(ranks(estimate), ranks(values))[0, 1]),
        "within_5_percent": float((error <= 0.05).mean()),
        "within_10_percent": float((error <= 0.10).mean()),
        "level": float(np.median(estimate / values)),
        "level_off": float(abs(np.median(estimate / values) - 1)),
    }


def score_ridge(ridge: Ridge, index: np.ndarray, values: np.ndarray, failed: np.ndarray) -> dict[str, float]:
    test = ~failed
    test[index] = False
    return accuracy(ridge.predict(index, values[index])[test], values[test])


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def load() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Features, latencies and device names."""
    data, more = (
        np.load(SHARED / "nasbench201" / f"{name}.npz") for name in ("nasbench201", "two_more_devices")
    )
    features = describe(data["arch_ops"].astype(int), data["macs_cifar10"].astype(float))
    latency = np.hstack([data["latency_ms"], more["latency_ms"]])
    return features, latency, [str(name) for name in (*data["device"], *more["device"])]


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


def leave_out(
    features: np.ndarray, latency: np.ndarray, devices: list[str], left_out: list[str], seeds: int
) -> dict[str, object]:
    """Every device predicted from those that are not left out with it; left_out: a name per device."""
    groups = [group_of(name) for name in devices]
    known: dict[str, tuple[DeviceBasis, Ridge]] = {}
    per_device: dict[str, dict[str, dict[str, float]]] = {}
    for column, device in enumerate(devices):
        away = left_out[column]
        if away not in known:
            kept = [other for other, name in enumerate(left_out) if name != away]
            given = features, latency[:, kept], [groups[other] for other in kept]
            known[away] = DeviceBasis(*given), Ridge(*given)
        basis, ridge = known[away]
        values = latency[:, column]
        failed = values < np.median(values) / 5
        ran = np.flatnonzero(~failed)
        rows: dict[str, dict[str, float]] = {}
        for count in COUNTS:
            chosen = sample(basis, values, failed, count)
            rows[f"chosen_{count}"] = mean([score(basis, chosen, values, failed)])
            draws = [
                np.random.default_rng([seed, column]).choice(ran, count, replace=False)
                for seed in range(seeds)
            ]
            rows[f"random_{count}"] = mean([score(basis, draw, values, failed) for draw in draws])
            rows[f"ridge_{count}"] = mean([score_ridge(ridge, draw, values, failed) for draw in draws])
        per_device[device] = rows
        print(device, {name: list(row.values()) for name, row in rows.items()}, file=sys.stderr)
    return summary(per_device)


def summary(per_device: dict[str, dict[str, dict[str, float]]]) -> dict[str, object]:
    """Means over devices, the least coverage, and how far a device is below the ridge at most."""
    rows = list(per_device.values())
    ways = list(rows[0])
    return {
        "mean": {way: mean([row[way] for row in rows]) for way in ways},
        "least_coverage_90": {
            way: min(row[way]["coverage_90"] for row in rows) for way in ways if "coverage_90" in rows[0][way]
        },
        "least_within_10_percent_over_ridge": {
            f"{way}_{count}": min(
                (
                    round(
                        row[f"{way}_{count}"]["within_10_percent"]
                        - row[f"ridge_{count}"]["within_10_percent"],
                        4,
                    ),
                    name,
                )
                for name, row in per_device.items()
            )
            for way in ("chosen", "random")
            for count in COUNTS
        },
        "devices": per_device,
    }


def alone(features: np.ndarray, latency: np.ndarray, devices: list[str], seeds: int) -> dict[str, float]:
    """Mean over devices of 100 random samples without any known device."""
    basis = DeviceBasis(features, np.empty((len(features), 0)))
    rows = []
    for column in range(len(devices)):
        values = latency[:, column]
        failed = values < np.median(values) / 5
        for seed in range(seeds):
            draw = np.random.default_rng([seed, column]).choice(np.flatnonzero(~failed), 100, False)
            rows.append(score(basis, draw, values, failed))
    return mean(rows)


def main(seeds: int) -> None:
    started = time.perf_counter()
    features, latency, devices = load()
    document = {
        "seeds": seeds,
        "no_source_100": alone(features, latency, devices, seeds),
        "machine_left_out": leave_out(
            features, latency, devices, [group_of(name) for name in devices], seeds
        ),
        "kind_left_out": leave_out(features, latency, devices, [kind_of(name) for name in devices], seeds),
    }
    document["seconds"] = round(time.perf_counter() - started, 1)
    json.dump(document, sys.stdout, indent=1)


if __name__ == "__main__":
    if sys.argv[1:] == ["ceiling"]:
        ceiling()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
