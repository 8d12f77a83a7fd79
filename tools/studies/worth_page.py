"""The table and the plot of the study of what a search is worth, from the results of its arms."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

BY_HAND = (
    "mobilenetv2",
    "narrower",
    "shallower",
    "narrower-inherited",
    "shallower-inherited",
    "mixed-inherited",
    "shallower-inherited-int8",
    "mixed-inherited-int8",
)
METHODS = ("search", "akd", "oracle", "dna", "subgraph", "subgraph-dfa", "subgraph-int8")
Found = Mapping[str, Mapping[str, list[Any]]]
"""Results of an arm by share, one for each seed; None where nothing keeps the budgets."""


def write_page(done: Mapping[str, Any], page: Path, machine: str) -> None:
    """The page, and the plot beside the other figures.

    Args:
        machine: where it ran, in words.
    """
    found = by_share(done)
    plot(found, page.parents[1] / "figures" / "worth.png")
    page.write_text(text(found, machine))


def by_share(done: Mapping[str, Any]) -> Found:
    found: dict[str, dict[str, list[Any]]] = {}
    for unit, value in done.items():
        name, share, _ = unit.split()
        found.setdefault(share, {}).setdefault(name, []).append(value)
    return found


def text(found: Found, machine: str) -> str:
    tables = "\n\n".join(
        f"## At {share} of the teacher's latency\n\n{table(arms)}\n\n{wrapped(verdict(arms) + left(arms))}"
        for share, arms in found.items()
    )
    columns = (
        "Accuracies are of the test split by the shipped files, the lower of both, with the sample standard "
        "deviation where there are several seeds. "
        "Latency is the measured artifact's share of the budget, the larger one of both runtimes. Minutes "
        "are those that the run itself took for all stages but the final training and its checks, on "
        f"{machine}; what an earlier run had measured or searched took none. A budget is a share of "
        "the latency of the teacher in float on the processor of the row, also of students in int8."
    )
    return f"""# What a search is worth

`tools/studies/worth.py --page PAGE` wrote this page; `tools/studies/worth.toml` says how long everything is
trained. The teacher is a ResNet-56, fine-tuned on the same images{teacher(found)}.
Every student has the same final training, and was measured as the file that is shipped.

{tables}

![Accuracy by method](../figures/worth.png)

{wrapped(columns)}
"""


def wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def left(arms: Mapping[str, list[Any]]) -> str:
    """Which arms have not run yet."""
    names = [name for name in (*BY_HAND, *METHODS) if name not in arms]
    return f" Not run yet: {', '.join(names)}." if names else ""


def teacher(found: Found) -> str:
    """Its accuracy on the test split, which every student's result has."""
    every = (each for arms in found.values() for results in arms.values() for each in results)
    known = next((float(each["teacher_accuracy"]) for each in every if each is not None), None)
    return "" if known is None else f"; {known:.2%} of the test images right"


def table(arms: Mapping[str, list[Any]]) -> str:
    lines = [
        "| student | test accuracy | of the budget | parameters | multiply-accumulates | search, minutes "
        "| processor |",
        "| --- |" + " --- |" * 6,
    ]
    for name, results in arms.items():
        kept = [each for each in results if each is not None]
        if not kept:
            lines.append(f"| {name} | none keeps the budgets | | | | | |")
            continue
        first = kept[0]
        used = max(each["budget_used"] for each in first["targets"].values())
        lines.append(
            f"| {name} | {accuracy(kept)} | {used:.2f} | {first['parameters']:,} "
            f"| {first['macs'] / 1e6:.1f} M | {search_minutes(first):.0f} "
            f"| {first['processor']} |"
        )
    return "\n".join(lines)


def accuracy(results: list[Any]) -> str:
    values = [each["accuracy"] for each in results]
    mean = statistics.mean(values)
    return f"{mean:.2%}" + (f" \u00b1 {statistics.stdev(values):.2%}" if len(values) > 1 else "")


def search_minutes(result: Any) -> float:
    final = {
        "data",
        "rehearse",
        "distil",
        "mixtures",
        "export",
        "quantise",
        "compile",
        "verify",
        "report",
        "bundle",
    }
    return sum(each["seconds"] for each in result["stages"] if each["name"] not in final) / 60


def verdict(arms: Mapping[str, list[Any]]) -> str:
    """The best of both kinds, in each precision."""
    means = {
        name: statistics.mean(each["accuracy"] for each in results)
        for name, results in arms.items()
        if all(each is not None for each in results)
    }
    in_int8 = {name for name in means if name.endswith("-int8")}
    in_float = means.keys() - in_int8
    told = []
    for where, ours, hand in (
        ("In float", in_float, in_float),
        ("In int8", in_int8, in_int8),
        ("In int8 beside float", in_int8, in_float),
    ):
        if not (hand & {*BY_HAND}) or not (ours & {*METHODS}):
            continue
        best = max(ours & {*METHODS}, key=means.__getitem__)
        other = max(hand & {*BY_HAND}, key=means.__getitem__)
        lead = 100 * (means[best] - means[other])
        reached = "reached" if lead >= 1 else "missed"
        told.append(
            f"{where} the best method is {best}, the best student made by hand {other}: {lead:+.2f} points "
            f"(target: at least 1.0; {reached}, as far as one seed tells)."
        )
    return " ".join(told) or "Methods and students made by hand are not yet both here."


def plot(found: Found, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 5))
    for share, arms in found.items():
        kept = {name: [each for each in results if each is not None] for name, results in arms.items()}
        names = [name for name, results in kept.items() if results]
        means = [100 * statistics.mean(each["accuracy"] for each in kept[name]) for name in names]
        axes.plot(means, names, "o", label=f"{share} of the teacher's latency")
    axes.set_xlabel("accuracy on the test split, %")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
