"""The page and the plot of the study of subgraphs, from its summary."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

WORDS = {
    "found": "found by the gates",
    "found-fresh": "the same, from new weights",
    "uniform": "the teacher's kind, narrower in all layers, from new weights",
    "found-labels": "gates with labels in place of the teacher",
    "found-macs": "gates, multiply-accumulates in place of latency",
    "found-uniform": "gates, every part at the same price",
    "mixed": "by hand: blocks and channels",
    "shallower": "by hand: blocks",
    "narrower": "by hand: channels",
    "least-blocks": "the least important blocks",
    "importance": "the least important parts for their latency",
}
CURVE = {
    "found": "found by the gates",
    "narrower": "uniform narrowing inside the blocks",
    "found-fresh": "found, from new weights",
    "uniform": "uniform narrowing, from new weights",
}


def write_page(result: dict, page: Path) -> None:
    """The page, and the plot beside the other figures."""
    plot(result, page.parents[1] / "figures" / "subgraph.png")
    page.write_text(text(result))


def text(result: dict) -> str:
    """The page.

    Args:
        result: for each share, the first one with all arms: the teacher's accuracy, and of each arm its
            accuracies, what it lacks to ``found``, and latencies as shares of the teacher's by target.
    """
    first, *_ = result
    arms = result[first]["arms"]
    seeds = len(arms["found"]["accuracies"])
    random = [name for name in arms if name.startswith("random-")]
    targets = list(arms["found"]["of_the_teacher"])
    rows = "\n".join(_row(WORDS[name], arms[name]) for name in WORDS if name in arms)
    if random:
        values = [arms[name]["accuracies"][0] for name in random]
        of = [
            _span([x for name in random for x in arms[name]["of_the_teacher"][target]]) for target in targets
        ]
        spread = f"{statistics.mean(values):.2%} ({min(values):.2%} to {max(values):.2%})"
        rows += f"\n| {len(values)} at random, one seed | {spread} | | | {' | '.join(of)} |"
    images, size = f"{result[first]['train_images']:,}".replace(",", " "), result[first]["image_size"]
    head = " | ".join(f"latency, `{target}`" for target in targets)
    curve = "\n".join(
        f"| {share}x | {words} | {_percent(entry['arms'][name]['accuracies'])} | "
        + " | ".join(_span(of) for of in entry["arms"][name]["of_the_teacher"].values())
        + " |"
        for share, entry in result.items()
        for name, words in CURVE.items()
        if name in entry["arms"]
    )
    return f"""# What a searched subgraph is worth

`python tools/studies/subgraph.py --shares {",".join(result)} --seeds {seeds} --page docs/results/subgraph.md`
wrote this page; the recipe is `tools/studies/subgraph_study.toml`.

The [subgraph](../methods/subgraph.md) that gates find stands beside those that one makes by hand or at
random. All use at most `{first}x` of the teacher's latency as the tables predict it, begin with the teacher's
weights unless the row says otherwise, and get the same distillation with the same seeds. Teacher: a ResNet-20
that others trained on CIFAR-10, fine-tuned on {images} images of CIFAR-10 (JPEG of quality 75) at
{size}x{size} pixels; {result[first]["teacher_accuracy"]:.2%} of the 10 000 test images right. A small study:
short trainings, few seeds. The method itself takes most of these as proposals and goes on with what a short
distillation says is best; here each stands alone.

## At {first}x of the teacher

Test accuracy is the mean of {seeds} seeds. Brackets are 95 % intervals by Student's t over the seeds; one
that holds 0 is a null. Latencies were measured on whole networks, as shares of the teacher's.

| subgraph | test accuracy | by seed | points less than found | {head} |
| --- | --- | --- | --- |{" --- |" * len(targets)}
{rows}

## The curve

| budget | subgraph | test accuracy | {head} |
| --- | --- | --- |{" --- |" * len(targets)}
{curve}

![Test accuracy against measured latency](../figures/subgraph.png)
"""


def plot(result: dict, path: Path) -> None:
    """Accuracy against measured latency, a panel for each target."""
    first, *_ = result
    targets = list(result[first]["teacher_ms"])
    figure, panels = plt.subplots(1, len(targets), figsize=(9, 3.6), sharey=True, squeeze=False)
    for axes, target in zip(panels[0], targets, strict=True):
        for name, words in CURVE.items():
            points = sorted(
                (_mean(entry["arms"][name]["of_the_teacher"][target]), 100 * entry["arms"][name]["accuracy"])
                for entry in result.values()
                if name in entry["arms"]
            )
            axes.plot(*zip(*points, strict=True), marker="o", label=words)
        others = [name for name in result[first]["arms"] if name not in CURVE and name in WORDS]
        for marker, name in zip("osD^vP*X", others, strict=False):
            arm = result[first]["arms"][name]
            place = _mean(arm["of_the_teacher"][target]), 100 * arm["accuracy"]
            axes.scatter(*place, label=WORDS[name], s=26, marker=marker, color="black", alpha=0.7)
        axes.axhline(100 * result[first]["teacher_accuracy"], color="grey", linestyle=":", label="teacher")
        axes.set_xlabel(f"measured latency, share of the teacher's\n{target}")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("test accuracy, %")
    panels[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def _row(words: str, arm: dict) -> str:
    less = arm["less_than_found"]
    if less is None:
        difference = ""
    elif less["low"] is None:
        difference = f"{100 * less['mean']:.2f}"
    else:
        difference = f"{100 * less['mean']:.2f} [{100 * less['low']:.2f}, {100 * less['high']:.2f}]"
    of = " | ".join(_span(values) for values in arm["of_the_teacher"].values())
    by_seed = ", ".join(f"{100 * each:.1f}" for each in arm["accuracies"])
    return f"| {words} | {_percent(arm['accuracies'])} | {by_seed} | {difference} | {of} |"


def _percent(accuracies: list[float]) -> str:
    return f"{statistics.mean(accuracies):.2%}"


def _mean(shares: list[float | None]) -> float:
    return statistics.mean(share for share in shares if share is not None)


def _span(shares: list[float | None]) -> str:
    known = [share for share in shares if share is not None]
    if not known:
        return "not measured"
    low, high = min(known), max(known)
    return f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"
