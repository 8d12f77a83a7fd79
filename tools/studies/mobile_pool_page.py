"""The page and the plot of the study of ratings in the mobile space, from its pieces of work."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import kendalltau, rankdata

SIZES = ("macs", "parameters")
KINDS = ("synflow", "relation", "blockwise")
"""Chosen on NAS-Bench-201, see raters_page.py; nothing is chosen by this pool."""
SHORT = "short-training"
UNTRAINED, FUSED = "one of each kind", "one of each kind and short-training"
BESIDE = (*SIZES, SHORT)
RESAMPLES = 2_000

Columns = Mapping[str, np.ndarray]


def write_page(done: Mapping[str, Any], page: Path, machine: str) -> None:
    """The page, and the plot beside the other figures.

    Args:
        done: values by the name of the piece of work.
        machine: where it ran, in words.
    """
    columns, truth, levels = found_in(done)
    plot(columns, truth, levels, page.parents[1] / "figures" / "mobile_pool.png")
    page.write_text(text(done, machine))


def found_in(done: Mapping[str, Any]) -> tuple[Columns, np.ndarray, np.ndarray]:
    """Ratings by name, accuracies, and levels of latency, of every network in the order of the pool.

    Raises:
        SystemExit: something has not been done yet.
    """
    networks = done["networks"]
    trained = [done.get(f"training {place} 0") for place in range(len(networks))]
    names = sorted({name.split()[0] for name in done} - {"networks", "training"})
    rated = {name: [done.get(f"{name} {place}") for place in range(len(networks))] for name in names}
    missing = [name for name, row in {"trainings": trained, **rated}.items() if None in row]
    if missing or not {SHORT, *KINDS} <= rated.keys():
        raise SystemExit(f"not everything is there yet: run the study on ({', '.join(missing) or 'ratings'})")
    # The mean of both trainings, where there are two.
    again = [done.get(f"training {place} 1") for place in range(len(networks))]
    truth = [
        statistics.mean(each["test_accuracy"] for each in pair if each)
        for pair in zip(trained, again, strict=True)
    ]
    columns = {name: np.array([float(each[name]) for each in networks]) for name in SIZES}
    columns |= {name: np.array([float(each["value"]) for each in row]) for name, row in rated.items()}
    ranks = {name: rankdata(values) for name, values in columns.items()}
    columns[UNTRAINED] = sum(ranks[name] for name in KINDS)
    columns[FUSED] = columns[UNTRAINED] + ranks[SHORT]
    return columns, np.array(truth), np.array([each["level"] for each in networks])


def tau(values: np.ndarray, truth: np.ndarray, levels: np.ndarray) -> float:
    return float(kendalltau(values, truth).statistic)


def in_levels(values: np.ndarray, truth: np.ndarray, levels: np.ndarray) -> float:
    """Mean of tau over networks that are equally fast."""
    each = [tau(values[levels == level], truth[levels == level], levels) for level in np.unique(levels)]
    return float(np.mean(each))


Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def interval(statistic: Callable[[np.ndarray], float], levels: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval over networks, which are drawn anew within their levels."""
    generator = np.random.default_rng(0)
    places = [np.flatnonzero(levels == level) for level in np.unique(levels)]
    found = [
        statistic(np.concatenate([generator.choice(each, len(each)) for each in places]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanquantile(found, (0.025, 0.975))
    return float(low), float(high)


def shown(statistic: Statistic, values: np.ndarray, truth: np.ndarray, levels: np.ndarray) -> str:
    low, high = interval(lambda drawn: statistic(values[drawn], truth[drawn], levels[drawn]), levels)
    return f"{statistic(values, truth, levels):.2f} [{low:.2f}, {high:.2f}]"


def table(done: Mapping[str, Any], columns: Columns, truth: np.ndarray, levels: np.ndarray) -> str:
    lines = ["| rating | tau | in levels of latency | core-seconds each |", "| --- |" + " --- |" * 3]
    for name, values in columns.items():
        first = done.get(f"{name} 0", {})
        seconds = [done[f"{name} {place}"]["core_seconds"] for place in range(len(truth))] if first else []
        cost = f"{statistics.mean(seconds):.1f}" if seconds else ""
        parts = [shown(each, values, truth, levels) for each in (tau, in_levels)]
        lines.append(f"| {name} | {' | '.join(parts)} | {cost} |")
    return "\n".join(lines)


def verdict(columns: Columns, truth: np.ndarray, levels: np.ndarray) -> str:
    """How much better the fused rating is than each of those that it has to beat."""
    lines = []
    for name in BESIDE:
        for statistic, words in ((tau, "tau"), (in_levels, "tau in levels")):

            def lead(drawn: np.ndarray, statistic: Statistic = statistic, name: str = name) -> float:
                given = truth[drawn], levels[drawn]
                return statistic(columns[FUSED][drawn], *given) - statistic(columns[name][drawn], *given)

            low, high = interval(lead, levels)
            better = "better" if low > 0 else "worse" if high < 0 else "it cannot be told"
            value = lead(np.arange(len(truth)))
            lines.append(f"- {words}, beside {name}: {value:+.2f} [{low:+.2f}, {high:+.2f}] ({better})")
    return "\n".join(lines)


def noise(done: Mapping[str, Any]) -> str:
    """What a second training of the same networks says."""
    pairs = [
        (done[name]["test_accuracy"], done[f"{name.rpartition(' ')[0]} 0"]["test_accuracy"])
        for name in done
        if name.startswith("training ") and name.endswith(" 1")
    ]
    first, second = np.array(pairs).T
    spread = float(np.sqrt(np.mean((first - second) ** 2) / 2))
    return (
        f"{len(pairs)} networks were trained twice. One training has a standard deviation of {spread:.2%} by "
        f"its seed, and tau between both is {kendalltau(first, second).statistic:.2f}: no rating can be "
        "expected to do better."
    )


def text(done: Mapping[str, Any], machine: str) -> str:
    columns, truth, levels = found_in(done)
    latencies = [each["latency_ns"] / 1e6 for each in done["networks"]]
    ranges = [
        f"{min(part):.2f} to {max(part):.2f} ms"
        for part in (np.array(latencies)[levels == level] for level in np.unique(levels))
    ]
    trained = [value for name, value in done.items() if name.startswith("training ")]
    hours = sum(each["core_seconds"] for each in trained) / 3600
    about = (
        f"{len(truth)} networks of the mobile space for 32x32 images, drawn at random near three levels of "
        f"latency ({', '.join(ranges)} on ONNX Runtime), were distilled from a fine-tuned ResNet-56 on "
        f"CIFAR-10 (JPEG), all alike and short of convergence: {trained[0]['epochs']} epochs over "
        f"{trained[0]['images']:,} images, {hours:.1f} core-hours on {machine}. "
        f"Their accuracy on the test split, {truth.min():.1%} to {truth.max():.1%}, "
        "is the truth. A rating is told by Kendall's tau with it: over all networks, and as the mean over "
        "the three levels, which is what counts within a budget. Brackets are 95 % bootstrap intervals over "
        "networks."
    )
    fused = (
        f'"{FUSED}" is the sum of the ranks by {", ".join(KINDS)} and {SHORT}. The kinds were chosen on '
        "NAS-Bench-201; nothing was chosen by this pool. It has to be better than each of these alone:"
    )
    return f"""# Ratings in the mobile space

`tools/studies/mobile_pool.py --page PAGE` wrote this page, from
[the trainings and ratings](mobile_pool/pool.jsonl).

{wrapped(about)}

{table(done, columns, truth, levels)}

{wrapped(noise(done))}

{wrapped(fused)}

{verdict(columns, truth, levels)}

![Tau in levels of latency by rating](../figures/mobile_pool.png)
"""


def wrapped(words: str) -> str:
    return textwrap.fill(words, 120, break_long_words=False, break_on_hyphens=False)


def plot(columns: Columns, truth: np.ndarray, levels: np.ndarray, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    for place, values in enumerate(columns.values()):
        low, high = interval(lambda drawn, v=values: in_levels(v[drawn], truth[drawn], levels[drawn]), levels)
        value = in_levels(values, truth, levels)
        error = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar([value], [place], xerr=error, fmt="o", color="tab:blue")
    axes.set_yticks(range(len(columns)), list(columns))
    axes.invert_yaxis()
    axes.set_xlabel("Kendall's tau with the test accuracy, mean over levels of latency")
    axes.grid(axis="x", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
