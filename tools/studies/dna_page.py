"""The page of the DNA study, from its document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from pipeline.work.disk import write_atomically

_DNA = "DNA"


def write_page(path: Path, scale: str, document: dict[str, Any]) -> None:
    """Write the page, whole or not at all, and its plot beside the other figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plot(path.parents[1] / "figures" / "dna.png", document["rankings"])
    write_atomically(path, page(scale, document).encode())


def plot(path: Path, rankings: dict[str, Any]) -> None:
    """Every evaluator's tau with its interval, over all networks and inside the bands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for key, label, shift, color in (
        ("tau", "over all networks", -0.14, "#4878a8"),
        ("tau_inside", "inside bands of equal cost", 0.14, "#d55e00"),
    ):
        rows = [(row, ranking[key]) for row, ranking in enumerate(rankings.values()) if ranking[key]]
        values = [value for _, (value, _, _) in rows]
        below = [value - low for _, (value, low, _) in rows]
        above = [high - value for _, (value, _, high) in rows]
        places = [row + shift for row, _ in rows]
        axes.errorbar(values, places, xerr=[below, above], fmt="o", color=color, label=label, capsize=3)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set_yticks(range(len(rankings)), list(rankings))
    axes.invert_yaxis()
    axes.set_xlabel("Kendall's tau with test accuracy, 95 % interval over networks")
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page(scale: str, document: dict[str, Any]) -> str:
    """The study as Markdown."""
    accuracies, macs = document["accuracies"], document["macs"]
    lines = [
        "# DNA's score against trained networks",
        "",
        f"`python tools/studies/dna.py --scale {scale}`: {document['networks']} networks of a space of "
        f"{document['architectures']:,}, equally many from each of {document['bands']} bands of MACs "
        f"({macs[0] / 1e6:.2f} to {macs[1] / 1e6:.2f} million), were trained with labels for "
        f"{document['epochs_alone']} epochs on {document['train_images']} images of Fashion-MNIST. On "
        f"{document['test_images']} test images they reach {accuracies['least']:.2%} to "
        f"{accuracies['most']:.2%}, on average {accuracies['mean']:.2%}; the teacher reaches "
        f"{document['teacher_accuracy']:.2%}.",
        "",
        "Every evaluator is compared with these accuracies: Kendall's tau over all networks and over pairs "
        "inside a band, and Spearman's rho, each with a 95 % bootstrap interval over networks. The row "
        '"trained again" has the same networks trained with another seed; no evaluator can be expected to do '
        "better.",
        "",
        "DNA's lead is its tau minus the other evaluator's, on the same networks.",
        "",
        "| evaluator | tau | tau inside bands | rho | DNA's lead | DNA's lead inside bands |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, ranking in document["rankings"].items():
        cells = [_interval(ranking[key]) for key in ("tau", "tau_inside", "rho")]
        leads = [_interval(ranking[key]) if name != _DNA else "" for key in ("lead", "lead_inside")]
        lines.append(f"| {name} | {' | '.join(cells + leads)} |")
    lines += ["", "![Kendall's tau of every evaluator](../figures/dna.png)", ""]
    lines += [*_verdict(document["rankings"]), ""]
    lines += [
        "The next table has the network that DNA selects with no more MACs than the largest of a band, "
        "trained once like the band's networks. For comparison, it has the largest uniform network within "
        "the limit: one with the same cell and operation everywhere, as you would make it by hand.",
        "",
        "| million MACs at most | its own | test accuracy | uniform | band's mean | band's best |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in document["found"]:
        own = " | ".join(_share(row[key]) for key in ("found", "uniform", "mean", "best"))
        lines.append(f"| {row['limit_macs'] / 1e6:.2f} | {row['macs'] / 1e6:.2f} | {own} |")
    lines += ["", _rivals(document["rivals"]), ""]
    if scale == "smoke":
        lines += [
            "This scale only shows that the study runs: its figures say nothing about the evaluators.",
            "",
        ]
    return "\n".join(lines)


def _interval(values: list[float] | None) -> str:
    if values is None:
        return "not defined"
    value, low, high = values
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _share(value: float | None) -> str:
    return "none fits" if value is None else f"{value:.2%}"


def _rivals(rivals: dict[str, Any]) -> str:
    found, others = rivals["found"], rivals["rivals"]
    mean = sum(found) / len(found)
    return (
        f"In the middle band ({rivals['macs'] / 1e6:.2f} million MACs), {len(others)} random networks of "
        f"nearly the same MACs reach {min(others):.2%} to {max(others):.2%}, on average "
        f"{sum(others) / len(others):.2%}. DNA's network, trained with {len(found)} seeds, reaches "
        f"{', '.join(f'{each:.2%}' for each in found)}; its mean beats "
        f"{sum(mean > each for each in others)} of them."
    )


def _verdict(rankings: dict[str, Any]) -> list[str]:
    """What the intervals allow to be said, null results included."""
    lines = []
    for key, lead, where in (
        ("tau", "lead", "Over all networks"),
        ("tau_inside", "lead_inside", "Inside the bands"),
    ):
        sure = "is above zero" if _positive(rankings[_DNA][key]) else "is not shown to be above zero"
        lines.append(f"- {where}, DNA's tau {sure}.")
        for other in ("SPOS", "MACs", "parameters", "distillation proxy"):
            better = "is above" if _positive(rankings[other][lead]) else "is not shown to be above"
            lines.append(f"- {where}, it {better} that of {other}.")
    return lines


def _positive(values: list[float] | None) -> bool:
    """Whether the whole interval is."""
    return values is not None and values[1] > 0
