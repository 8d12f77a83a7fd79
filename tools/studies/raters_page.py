"""The page and the plot of the study of ratings, from its summary."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

UNTRAINED, ALL = "sum of ranks, untrained", "sum of ranks, all five"
FUSION = "sum of ranks, one of each kind"
PROCESS = "process, with ratings"
LIMIT = "sum of ranks, one of each kind and 12 epochs"
FUSED = ("naswot", "synflow", "relation", "readout", "blockwise")
KINDS = ("synflow", "relation", "blockwise")
"""One of the network alone, one that compares its maps with the teacher's, one of trained weights."""
NETWORKS = 6_466
TARGETS = {FUSION: (0.74, 0.58), PROCESS: (0.82, 0.74)}


def write_page(result: dict, page: Path) -> None:
    """The page, and the plot beside the other figures."""
    plot(result, page.parents[1] / "figures" / "raters.png")
    page.write_text(text(result))


def text(result: dict) -> str:
    known, networks = result["known_to_the_process"], result["networks"]
    costs = [result["raters"][name] for name in KINDS]
    trained = "; ".join(
        f"`{name}` also takes {each['core_seconds_of_training']:.0f} core-seconds of training, once"
        for name, each in result["raters"].items()
        if each.get("core_seconds_of_training")
    )
    minutes = NETWORKS * sum(each["core_seconds"] for each in costs) / 60
    reached = "reached" if minutes <= 20 else "missed"
    return f"""# Ratings on NAS-Bench-201

`tools/studies/raters.py --cells {result["cells"]} --seed {result["seed"]} --page PAGE` wrote this page.

{result["cells"]} networks of NAS-Bench-201 were rated by Lathe's [ratings](../methods/ratings.md): the
benchmark's skeleton with one cell a stage, images of CIFAR-10 (JPEG of quality 75), and as teacher a
ResNet-56 that others trained on the original images. `tools/studies/cell_ratings.py` made
[the ratings](raters/ratings.npz). The truth is the test accuracy after 200 epochs. Ratings were tuned on 250
networks of another draw. The sum of one rating of each kind ({", ".join(f"`{each}`" for each in KINDS)}) was
chosen by 1,176 other ones, on which it did better than the sum of all. Nothing was tuned or chosen by these.

A rating is told by Kendall's tau with the truth, over all cells, and as the mean over five bands of equal
multiply-accumulates. What costs more is more accurate in this space, so a rating that knows nothing but
the cost has a high tau, and is of no use within a budget: the second column is what counts. The last one
has bands of equal latency instead, mean over 19 device settings. Brackets are 95 % bootstrap intervals over
networks.

{table(result)}

"12 epochs" is the validation accuracy after 12 epochs. The process is the
[predictor's](../methods/predictor.md): it knows that accuracy of {known:,} networks, a tenth of all
{networks:,} that were rated, drawn at random, and orders all by it. It is told with the features of the space
and the cost alone, and with the ratings as features and by their trust. Seconds are those of one core for one
network, beside other work; {trained}.

![Tau in bands of every rating](../figures/raters.png)

{verdict(result)}

To rate all {NETWORKS:,} different networks of the benchmark by one rating of each kind takes
{minutes:.0f} core-minutes, beside that training (target: at most 20; {reached}).
`blockwise` is the supervision of [DNA](../methods/dna.md) for any space. {one_shot(result)}
"""


def one_shot(result: dict) -> str:
    if "one-shot" not in result["raters"]:
        return "`one-shot` was not run here."
    return (
        "`one-shot` trains whole networks by\n"
        "what the teacher says, for as many epochs over the same images. It is no part of the sums."
    )


def table(result: dict) -> str:
    lines = [
        "| rating | CIFAR-10: tau | in bands | CIFAR-100: tau | in bands "
        "| ImageNet-16: tau | in bands | CIFAR-10 in bands of latency | seconds |",
        "| --- |" + " --- |" * 8,
    ]
    for name, entry in result["raters"].items():
        cells = [
            _cell(entry[truth][what])
            for truth in ("cifar10", "cifar100", "imagenet16")
            for what in ("tau", "in_bands")
        ]
        cells.append(f"{entry['cifar10']['in_bands_of_latency']:.2f}")
        cells.append(f"{entry['core_seconds']:.2f}" if "core_seconds" in entry else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(result: dict) -> str:
    found = []
    for name, targets in TARGETS.items():
        entry = result["raters"][name]["cifar10"]
        for what, target in zip(("tau", "in_bands"), targets, strict=True):
            value = entry[what]["value"]
            words = "tau" if what == "tau" else "tau in bands"
            reached = "reached" if value >= target else "missed"
            found.append(f"- {name}, {words}: {value:.2f} (target at least {target:.2f}, {reached})")
    best = result["raters"][LIMIT]["cifar10"]
    found.append(
        f"\nIf that accuracy of every network is known, its rank and those of one rating of each kind add up "
        f"to\n{best['tau']['value']:.2f} and {best['in_bands']['value']:.2f} in bands: to be told it of a "
        "tenth costs little, and what 12 epochs do not show,\nno prediction of them can."
    )
    return "\n".join(found)


def plot(result: dict, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    for name, entry in result["raters"].items():
        found = entry["cifar10"]["in_bands"]
        place = list(result["raters"]).index(name)
        error = [[max(0.0, found["value"] - found["low"])], [max(0.0, found["high"] - found["value"])]]
        axes.errorbar([found["value"]], [place], xerr=error, fmt="o", color="tab:blue")
    axes.set_yticks(range(len(result["raters"])), list(result["raters"]))
    axes.invert_yaxis()
    axes.set_xlabel("Kendall's tau with the accuracy on CIFAR-10 after 200 epochs, in bands of equal cost")
    axes.grid(axis="x", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def _cell(found: dict[str, float]) -> str:
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
