"""The figures, the page and the plot of the study of feature aggregation, from its units of work."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

import matplotlib.pyplot as plt

SEARCHES = {
    "teacher_to_student": "teacher to student",
    "bridge": "bridge",
    "student_to_teacher": "student to teacher",
    "student_loss": "loss of the training",
}
SWEPT = {
    "bridge_tenfold": "bridge, ten times the balance",
    "bridge_tenth": "bridge, a tenth of the balance",
}
ARMS = {
    "labels": "labels alone",
    "soft_targets": "soft targets",
    "decoupled_kd": "decoupled KD",
    "attention_transfer": "attention transfer",
    "fitnet": "FitNet",
    "last": "aggregation, last",
    "average": "aggregation, average",
    "random": "aggregation, random (mean of 5)",
    **{name: f"aggregation, searched: {words}" for name, words in SEARCHES.items()},
}
RANDOM = 5
RESAMPLES = 4000
SEEDS_OF_SEARCH, SEEDS_OF_TRAINING = 3, 5
"""How many seeds a claim needs: depths hardly differ from seed to seed, accuracies do."""

Figure = dict[str, float]


def write_page(setting: dict[str, Any], units: dict[str, Any], page: Path) -> None:
    """The page, and the plot beside the other figures."""
    result = summarise(units)
    plot(result, page.parents[1] / "figures" / "feature_aggregation.png")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text(setting, units, result))


def summarise(units: dict[str, Any]) -> dict[str, Any]:
    """All figures; those of searches and of trainings are each of the seeds for which all are there."""
    searched = complete(units, "search", SEARCHES)
    names = [name for arm in ARMS for name in (random_arms() if arm == "random" else [arm])]
    trained = complete(units, "train", names)
    seeds = dict.fromkeys(SEARCHES, searched) | {
        name: swept for name in SWEPT if (swept := complete(units, "search", [name]))
    }
    depths = {
        name: np.array([[g["depth"] for g in units[f"search {name} {seed}"]] for seed in own], float)
        for name, own in seeds.items()
    }
    tested = {arm: np.array([points(units, arm, seed) for seed in trained]) for arm in ARMS}
    found = units[f"search bridge {searched[0]}"] if searched else []
    return {
        "searched": searched,
        "trained": trained,
        "groups": [tuple(group["size"]) for group in found],
        "layers": [[name.removeprefix("network.") for name in group["teacher_layers"]] for group in found],
        "shares": {
            name: [
                np.array([units[f"search {name} {seed}"][number]["shares"] for seed in searched])
                for number in range(len(found))
            ]
            for name in SEARCHES
        },
        "depths": depths,
        "tested": tested,
    }


def complete(units: dict[str, Any], what: str, names: Sequence[str]) -> list[int]:
    """Seeds, from 0 on, of which everything is there."""
    seeds = itertools.takewhile(
        lambda seed: all(f"{what} {name} {seed}" in units for name in names), itertools.count()
    )
    return list(seeds)


def random_arms() -> list[str]:
    return [f"random{number}" for number in range(RANDOM)]


def points(units: dict[str, Any], arm: str, seed: int) -> float:
    """Test accuracy in points."""
    arms = random_arms() if arm == "random" else [arm]
    return float(np.mean([units[f"train {each} {seed}"]["test"] for each in arms]))


def interval(values: np.ndarray) -> Figure:
    """Mean over seeds with a 95 % bootstrap percentile interval."""
    generator = np.random.default_rng(0)
    rows = generator.integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[rows].mean(axis=1), (0.025, 0.975))
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def similarity(shares: Sequence[np.ndarray]) -> float:
    """Mean cosine similarity between two seeds, over the groups together."""
    rows = np.concatenate(shares, axis=1)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = list(itertools.combinations(range(len(rows)), 2))
    return float(np.mean([rows[one] @ rows[other] for one, other in pairs])) if pairs else float("nan")


def text(setting: dict[str, Any], units: dict[str, Any], result: dict[str, Any]) -> str:
    train, validation, test = setting["images"]
    size, weight = setting["image_size"], setting["weight"]
    searched, trained = len(result["searched"]), len(result["trained"])
    teacher = units["teacher"]["test"]
    tried = ", ".join(f"{each:g}" for each in setting["weights"])
    study = "python tools/studies/feature_aggregation.py"
    return f"""# Where does the search for feature aggregation put its weight?

`{study} --scale {setting["scale"]} --page docs/results/feature_aggregation.md` wrote this page, with
`--state docs/results/feature_aggregation/units.jsonl`.

[DFA](../methods/dfa.md) searches which of the teacher's feature maps of one size a student should
imitate, and claims that the two paths of its bridge loss pull apart: what the student must be able to
imitate prefers shallow maps, what must classify well prefers deep ones. This study asks where the weight
goes, and whether students are better for it.

- Data: Fashion-MNIST at {size}x{size} pixels; {train} images to train, {validation} to choose, {test} to
  test.
- Teacher: a residual ConvNet with three blocks at each of three sizes, trained with
  {setting["teacher_images"]} images; {teacher:.1f} % of the test images right. Student: a mobile network of
  {setting["student_parameters"]:,} parameters with maps of the same sizes.
- Search: {setting["search_epochs"]} epochs for each size, of which {setting["warmup_epochs"]} are the
  warm-up; half of the images for the weights, half for the mixture.
- Training: {setting["student_epochs"]} epochs, from the same weights for every loss. The weight of feature
  aggregation is {weight:g}, chosen among {tried} for the last maps on the validation images. FitNet has the
  same weight for each size; the others have the weights of their authors.
- Seeds: {searched} of the searches, {trained} of the trainings. Intervals are 95 % bootstrap intervals over
  the seeds; with so few they are rough.

## Where the weight goes

The depth of a mixture is the mean place of its shares: 0 is all on the first map of a group, 1 all on the
last.

{depths(result)}

![Shares of the teacher's layers, and test accuracy](../figures/feature_aggregation.png)

Two seeds agree with a cosine similarity of their shares of {agreement(result)}. The average of all maps
agrees with itself, so a similarity near 1 may also mean that a search hardly left it.

## Test accuracy

{accuracies(result)}

## What follows

{findings(result)}
"""


def depths(result: dict[str, Any]) -> str:
    sizes = [f"{height}x{width}" for height, width in result["groups"]]
    lines = [
        "| searched with | " + " | ".join(sizes) + " | mean over the sizes |",
        "| --- |" + " --- |" * (len(sizes) + 1),
    ]
    for name, table in result["depths"].items():
        words = (SEARCHES | SWEPT)[name]
        if len(table) != len(result["searched"]):
            words += f" (seeds: {len(table)})"
        cells = [shown(interval(table[:, number])) for number in range(len(sizes))]
        lines.append(f"| {words} | " + " | ".join([*cells, shown(interval(table.mean(axis=1)))]) + " |")
    return "\n".join(lines)


def agreement(result: dict[str, Any]) -> str:
    parts = [f"{similarity(result['shares'][name]):.3f} ({words})" for name, words in SEARCHES.items()]
    return ", ".join(parts)


def accuracies(result: dict[str, Any]) -> str:
    if not result["trained"]:
        return "No seed of the trainings is complete."
    lines = [
        "| trained with | test accuracy, % | above aggregation of the last maps, points |",
        "| --- | --- | --- |",
    ]
    last = result["tested"]["last"]
    for arm, words in ARMS.items():
        values = result["tested"][arm]
        difference = "" if arm == "last" else shown(interval(values - last))
        lines.append(f"| {words} | {shown(interval(values))} | {difference} |")
    return "\n".join(lines)


def findings(result: dict[str, Any]) -> str:
    """Sentences that the figures allow: an effect is claimed only where its interval leaves zero out."""
    mean = {name: table.mean(axis=1) for name, table in result["depths"].items()}
    lines = [
        claim(
            "The path from student to teacher alone puts its weight on shallower maps than the bridge",
            mean["bridge"] - mean["student_to_teacher"], "of the depth", seeds=SEEDS_OF_SEARCH,
        ),
        claim(
            "The path from teacher to student alone puts it on deeper maps than the bridge",
            mean["teacher_to_student"] - mean["bridge"], "of the depth", seeds=SEEDS_OF_SEARCH,
        ),
        claim(
            "The loss of the training puts it on shallower maps than the bridge",
            mean["bridge"] - mean["student_loss"], "of the depth", seeds=SEEDS_OF_SEARCH,
        ),
    ]  # fmt: skip
    ordered = [
        f"{height}x{width}"
        for number, (height, width) in enumerate(result["groups"])
        if all(
            (result["depths"][deeper] > result["depths"][shallower])[:, number].all()
            for deeper, shallower in (("teacher_to_student", "bridge"), ("bridge", "student_to_teacher"))
        )
    ]
    lines.append(
        "- These are means over the sizes. In all seeds the three have the order that the claim needs, "
        f"student to teacher the shallowest, for the maps of: {', '.join(ordered) or 'no size'}."
    )
    tested = result["tested"]
    for other in ("last", "average", "random", "student_loss", "fitnet", "soft_targets"):
        lines.append(
            claim(
                f"Students are better for the mixtures of the bridge than for {ARMS[other]}",
                tested["bridge"] - tested[other], "points", seeds=SEEDS_OF_TRAINING,
            )
        )  # fmt: skip
    return "\n".join(lines)


def claim(sentence: str, values: np.ndarray, unit: str, *, seeds: int) -> str:
    if not len(values):
        return f"- {sentence}: **not tested**."
    figure = interval(values)
    if len(values) < seeds:
        verdict = f"**not decided**, that needs {seeds} seeds"
    elif figure["low"] > 0:
        verdict = "**shown**"
    elif figure["high"] < 0:
        verdict = "**the opposite is shown**"
    else:
        verdict = "**not shown**"
    right = int((values > 0).sum())
    return f"- {sentence}: {verdict} ({shown(figure)} {unit}; {right} of {len(values)} seeds)."


def shown(figure: Figure) -> str:
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def plot(result: dict[str, Any], path: Path) -> None:
    count = len(result["groups"])
    figure, axes = plt.subplots(
        1, count + 1, figsize=(3.2 * count + 5, 4.4), layout="constrained", width_ratios=[*[1] * count, 1.5]
    )
    for number, (size, layers) in enumerate(zip(result["groups"], result["layers"], strict=True)):
        for name, words in SEARCHES.items():
            shares = 100 * result["shares"][name][number]
            (line,) = axes[number].plot(shares.mean(axis=0), "o-", label=words)
            for row in shares:
                axes[number].plot(row, ".", color=line.get_color(), alpha=0.35, markersize=4)
        axes[number].set_xticks(range(len(layers)), layers, rotation=45, ha="right")
        axes[number].set_title(f"maps of {size[0]}x{size[1]}", fontsize=10)
        axes[number].set_ylim(0, None)
    axes[0].set_ylabel("share of the mixture, %")
    axes[0].legend(frameon=False, fontsize=8, title="searched with", title_fontsize=8)
    _accuracies(axes[-1], result)
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _accuracies(axes: Any, result: dict[str, Any]) -> None:
    rows: Callable[[int], float] = float
    for row, arm in enumerate(ARMS):
        values = result["tested"][arm]
        if len(values):
            axes.plot(values, [rows(row)] * len(values), ".", color="0.6")
            axes.plot(values.mean(), row, "o", color="0.2")
    axes.set_yticks(
        range(len(ARMS)), [words.removeprefix("aggregation, ") for words in ARMS.values()], fontsize=8
    )
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy, %")
