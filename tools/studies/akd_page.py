"""The page and the plot of AKD's study, from its summary."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

CHOSEN_BY = {
    "labels": "labels",
    "first": "first teacher",
    "second": "second teacher",
    "random": "random search",
    "macs": "most multiply-accumulates",
    "parameters": "most parameters",
}
TRAINED_BY = {"labels": "labels", "first": "first teacher", "second": "second teacher"}


def write_page(result: dict, page: Path) -> None:
    """The page, and the plot beside the other figures."""
    plot(result, page.parents[1] / "figures" / "akd.png")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text(result))


def text(result: dict) -> str:
    train, validation, test = result["images"]
    latencies = "a table measured on this machine" if result["measured"] else "a table that is made up"
    first, second = result["teachers"]["first"], result["teachers"]["second"]
    epochs, short = counted(result["full_epochs"], "epoch"), counted(result["short_epochs"], "epoch")
    return f"""# Does the teacher choose its student?

`python tools/studies/akd.py --scale {result["scale"]} --page docs/results/akd.md` wrote this page.

[AKD](../methods/akd.md) evaluates networks by what a teacher can teach them in a short time, not by what
they learn from labels. This study asks whether that finds students that suit the teacher, or only better
networks, or neither.

- Data: Fashion-MNIST at 14x14 pixels; {train} images to train, {validation} to evaluate, {test} to test.
- Space: {result["architectures"]:,} networks with the decisions of AKD's space in two stages. Latencies
  come from {latencies}; {result["within_limit"]:,} networks keep the limit of {result["limit_ms"]:.4f}
  ms.
- Teachers: a ConvNet ({first:.1f} % of the test images right) and a ResNet-14 ({second:.1f} %).
- Search: {result["evaluations"]} evaluations of {short} each, by the policy of AKD with its reward, or at
  random with the first teacher's scores. The best are evaluated once more, then one is chosen.
- Seeds: {result["seeds"]}. Each choice is trained in full for {epochs}, with every signal from the same
  weights, and tested once.

## Test accuracy

The table shows means over seeds in %, with 95 % bootstrap intervals. With {result["seeds"]} seeds an
interval is rough.

{accuracies(result)}

![Test accuracy by who chose and who trained, and agreement of rankings](../figures/akd.png)

## Effects

These are differences between results of the same seeds, in points.

{effects(result)}

## What a ranking can reach

{result["rankings"]["networks"]} random networks near the limit were trained in full. Two trainings by the
first teacher with different seeds agree with Kendall's tau = {shown(result["rankings"]["retest"])}. A
training with labels and one by the teacher agree with tau =
{shown(result["rankings"]["labels_against_teacher"])}.

{rankings(result)}

## What follows

{findings(result)}
"""


def accuracies(result: dict) -> str:
    lines = [
        "| chosen by | " + " | ".join(f"trained by {name}" for name in TRAINED_BY.values()) + " |",
        "| --- |" + " --- |" * len(TRAINED_BY),
    ]
    for by, name in CHOSEN_BY.items():
        cells = (shown(result["accuracy"][by][signal]) for signal in TRAINED_BY)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def effects(result: dict) -> str:
    lines = ["| effect | points |", "| --- | --- |"]
    lines += [f"| {name} | {shown(each)} |" for name, each in result["effects"].items()]
    return "\n".join(lines)


def rankings(result: dict) -> str:
    lines = [
        "| evaluated by | tau, trained by labels | tau, trained by the first teacher |",
        "| --- | --- | --- |",
    ]
    for name, sides in result["rankings"]["evaluators"].items():
        lines.append(f"| {name} | {shown(sides['labels'])} | {shown(sides['first'])} |")
    return "\n".join(lines)


def findings(result: dict) -> str:
    """Sentences that the intervals allow: an effect is claimed only where its interval leaves zero out."""
    if result["scale"] == "smoke":
        return "Nothing: this scale only shows that the study runs."
    found, far, above = result["effects"], result["distances"], result["rankings"]["retest_above_labels"]
    testable = above["low"] is not None and above["low"] > 0
    lines = [
        claim(
            "A teacher chooses other networks than labels do, beyond what another seed changes",
            far["signals above seeds"],
            "of the decisions",
        ),
        claim(
            "A second teacher changes the choice by more than another seed does",
            far["teachers above seeds"],
            "of the decisions",
        ),
        claim("Training by the teacher helps", found["trained by the teacher, not by labels"], "points"),
        claim(
            "What the teacher chose is better, when trained by it, than what labels chose",
            found["chosen by the teacher, trained by the teacher"],
            "points",
        ),
        claim("It is better than what random search chose", found["against random search"], "points"),
        claim(
            "It is better than the network of most multiply-accumulates",
            found["against most multiply-accumulates"],
            "points",
        ),
        claim("It is better than the network of most parameters", found["against most parameters"], "points"),
    ]
    if testable:
        lines.append(
            claim("The advantage is specific to training by the teacher", found["interaction"], "points")
        )
    else:
        lines.append(
            "- That the advantage is specific to training by the teacher: **not testable** at this scale. On "
            "the order of networks, two trainings from the teacher do not agree clearly more than one from "
            f"labels and one from the teacher do (tau differs by {shown(above)})."
        )
    same = f"{far['same choice']} of {result['seeds']}"
    lines.append(
        f"- Labels and the first teacher chose the same network for {same} seeds. Their choices differ in "
        f"{shown(far['labels and teacher'])} of the decisions; those of two seeds in "
        f"{shown(far['two seeds of labels'])} (labels) and {shown(far['two seeds of the first teacher'])} "
        "(first teacher)."
    )
    return "\n".join(lines)


def claim(sentence: str, figures: dict, unit: str) -> str:
    low, high = figures["low"], figures["high"]
    if low is None or high is None:
        verdict = "undefined"
    elif low > 0:
        verdict = "**shown**"
    elif high < 0:
        verdict = "**the opposite is shown**"
    else:
        verdict = "**not shown**"
    return f"- {sentence}: {verdict} ({shown(figures)} {unit})."


def shown(figures: dict) -> str:
    if figures["value"] is None:
        return "undefined"
    ends = ("undefined" if figures[end] is None else f"{figures[end]:.2f}" for end in ("low", "high"))
    return f"{figures['value']:.2f} [{', '.join(ends)}]"


def counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count != 1 else "")


def wrapped(name: str, width: int) -> str:
    return "\n".join(textwrap.wrap(name, width))


def plot(result: dict, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(1.5, 1))
    for offset, (signal, name) in enumerate(TRAINED_BY.items()):
        places = [place + (offset - 1) * 0.2 for place in range(len(CHOSEN_BY))]
        cells = [result["accuracy"][by][signal] for by in CHOSEN_BY]
        (line,) = left.plot(places, [cell["value"] for cell in cells], "o", label=f"trained by {name}")
        left.vlines(
            places, [cell["low"] for cell in cells], [cell["high"] for cell in cells], line.get_color()
        )
        for place, by in zip(places, CHOSEN_BY, strict=True):
            points = result["tested"][by][signal]
            left.plot([place] * len(points), points, ".", color=line.get_color(), alpha=0.35, markersize=4)
    left.set_xticks(range(len(CHOSEN_BY)), [wrapped(name, 12) for name in CHOSEN_BY.values()])
    left.set_xlabel("chosen by")
    left.set_ylabel("test accuracy (%)")
    left.legend(frameon=False)
    names = {
        "the same again": result["rankings"]["retest"],
        **{name: sides["first"] for name, sides in result["rankings"]["evaluators"].items()},
    }
    known = {name: each for name, each in names.items() if None not in each.values()}
    rows = range(len(known))
    right.plot([each["value"] for each in known.values()], rows, "o", color="0.2")
    right.hlines(rows, [e["low"] for e in known.values()], [e["high"] for e in known.values()], "0.2")
    right.axvline(0, color="0.7", linewidth=1)
    right.set_yticks(rows, [wrapped(name, 16) for name in known])
    right.invert_yaxis()
    right.set_xlabel("Kendall's tau with full training\nby the first teacher")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
