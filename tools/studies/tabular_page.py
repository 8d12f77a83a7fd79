"""The page and the plot of the tabular study, from its summary."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

SHOWN = (25, 50, 100, 200)
LABELS = {
    "random": "random",
    "evolution": "regularised evolution",
    "nsga2": "NSGA-II",
    "reinforce": "policy, REINFORCE",
    "ppo": "policy, PPO",
    "predictor": "predictor, best evaluated",
    "predictor, ranked": "predictor, its ranking",
    "rated": "predictor with ratings, best evaluated",
    "rated, ranked": "predictor with ratings, its ranking",
    "nni-random": "NNI Random",
    "nni-evolution": "NNI RegularizedEvolution",
    "nni-evolution-20": "NNI RegularizedEvolution, population 20",
    "nni-tpe": "NNI TPE",
}


def write_page(result: dict, page: Path) -> None:
    """The page, and the plot beside the other figures."""
    figure = page.parents[1] / "figures" / "tabular.png"
    plot(result, figure)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text(result))


def text(result: dict) -> str:
    tasks = len(result["devices"]) * len(result["percentiles"])
    budgets = ", ".join(map(str, result["percentiles"][:-1])) + f" and {result['percentiles'][-1]}"
    return f"""# Strategies on NAS-Bench-201

`python tools/studies/tabular.py --scale {result["scale"]} --page docs/results/tabular.md` wrote this page.

The cells of NAS-Bench-201 have known latencies on 19 device settings and known accuracies. So you can
repeat a search under a budget many times and compare it with the best possible result. There are {tasks}
tasks: {len(result["devices"])} device settings, each with budgets that {budgets} % of its cells keep.
Each task was searched with {result["seeds"]["random"]} seeds, those of the predictor with
{result["seeds"]["predictor"]}.

A strategy proposes cells within the budget. A cell's score is its validation accuracy after 12 epochs on
CIFAR-10. The answer of a search is the cell with the best score. Its **regret** is the test accuracy
after 200 epochs that it lacks against the best cell within the budget, in points. The data have no
validation accuracy after 200 epochs.

Scores are noisy, so the best score is probably too high. The [predictor](../methods/predictor.md) also
ranks the evaluated cells by what it has learned from all of them. So it has two rows: the regret of the
cell with the best score, and that of the cell that it ranks first. An answer is always an evaluated cell.
**With ratings**, it also has the four [ratings](../methods/ratings.md) of untrained networks, as a search has
them by default. `tools/studies/cell_ratings.py` made them on other networks of these cells, with a teacher.

{textwrap.fill("Device settings: " + ", ".join(result["devices"]) + ".", 110)}

## Regret

Means over tasks and seeds, with 95 % bootstrap intervals that resample devices and seeds.

{table(result, "regret")}

Evaluating every cell within the budget and taking the best score leaves a regret of
{result["regret_when_all_are_evaluated"]:.2f} points on average, because 12 epochs do not tell everything.

![Mean regret after each number of evaluations](../figures/tabular.png)

## Against random draws

The table shows the regret of random draws minus the strategy's, on the same task with the same seed. A
positive value is better than random.

{table(result, "less_than_random", skip=("random",))}

{verdict(result)}

## What it costs

Core-hours until a strategy's mean regret is that of random draws after {result["evaluations"][-1]}
evaluations: short trainings by their multiply-accumulates, as `tools/studies/cell_costs.py` measured them on
this machine (12 epochs of 25 000 images), ratings as they were measured, and the strategy itself. Regrets
are known after {", ".join(map(str, result["evaluations"]))} evaluations.

{costs(result)}

## How to read it

The strategies have their default settings. We chose these on other accuracies and costs of the same
cells: CIFAR-100 and ImageNet16-120, with MACs and parameters instead of latencies. The same holds for the
features of the space, which only the predictor reads. The features say which operation is on an edge,
which edges carry anything from the input to the output, and how often each operation is on those. The
number of the policies' first draws was not tuned. The space uses nothing of Lathe
(`tools/studies/cell_space.py`). Random draws are uniform among the cells within the budget, except that
after ten draws beyond it the last one is repaired. The latencies are taken as exact: the study does not
include the cost of an uncertain table. A latency below a fifth of the device's median is a failed run,
and its cell cannot be chosen.

{nni(result)}
"""


def nni(result: dict) -> str:
    if "nni-random" not in result["strategies"]:
        return "NNI was not installed, so its strategies are missing here."
    seeds, few = (result["seeds"][name] for name in ("nni-random", "nni-tpe"))
    return f"""\
NNI's strategies get the same budgets and scores, through `pipeline/integrations/nni/strategies.py`. NNI's
filter refuses what is beyond the budget, and the strategy proposes again. `RegularizedEvolution` has
NNI's defaults, including a population of 100. Another row has a population of 20, tournaments of 5 and
one mutation per cell on average. NNI's strategies have {seeds} seeds, `TPE` {few}. NNI waits a second
after each proposal of TPE; the study does not. A cell that a strategy proposes again is not counted
again, but each strategy ends after 200 proposals within the budget, and its answer is what it has then.
`TPE` soon repeats its proposals. NNI's tuner then goes through a grid instead: from about the sixtieth
proposal on, the proposals are the same for every seed."""


def table(result: dict, quantity: str, skip: tuple[str, ...] = ()) -> str:
    columns = [result["evaluations"].index(evaluations) for evaluations in SHOWN]
    lines = [
        "| strategy | " + " | ".join(f"{evaluations} evaluations" for evaluations in SHOWN) + " |",
        "| --- |" + " --- |" * len(SHOWN),
    ]
    for name, found in result["strategies"].items():
        if name not in skip:
            values = found[quantity]
            cells = [
                f"{values['mean'][c]:.2f} [{values['low'][c]:.2f}, {values['high'][c]:.2f}]" for c in columns
            ]
            lines.append(f"| {LABELS[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def costs(result: dict) -> str:
    random = result["strategies"]["random"]
    goal, spent = random["regret"]["mean"][-1], random["core_seconds"][-1]
    lines = [
        f"| strategy | evaluations to a regret of {goal:.2f} | core-hours | of those of random |",
        "| --- |" + " --- |" * 3,
    ]
    for name, found in result["strategies"].items():
        places = [place for place, mean in enumerate(found["regret"]["mean"]) if mean <= goal]
        if name.startswith("nni-"):
            continue
        if not places:
            lines.append(f"| {LABELS[name]} | not reached | | |")
            continue
        seconds = found["core_seconds"][places[0]]
        lines.append(
            f"| {LABELS[name]} | {result['evaluations'][places[0]]} | {seconds / 3600:.1f} "
            f"| 1/{spent / seconds:.1f} |"
        )
    return "\n".join(lines)


def verdict(result: dict) -> str:
    own = {name: found for name, found in result["strategies"].items() if not name.startswith("nni-")}
    shown = [result["evaluations"].index(evaluations) for evaluations in SHOWN]

    def share(evaluations: int, target: float) -> str:
        at = result["evaluations"].index(evaluations)
        means = {name: found["regret"]["mean"][at] for name, found in own.items()}
        best = min(means.keys() - {"random"}, key=means.__getitem__)
        ratio = means[best] / means["random"]
        reached = "reached" if ratio <= target else "missed"
        return (
            f"After {evaluations} evaluations the best answer is that of: {LABELS[best]}. It has {ratio:.2f} "
            f"times the regret of random draws (target: at most {target}, {reached}). "
        )

    def worse(bound: str) -> str:
        found = (name for name in own if min(own[name]["less_than_random"][bound][n] for n in shown) < 0)
        return ", ".join(LABELS[name] for name in found) or "none"

    return textwrap.fill(
        f"{share(50, 0.5)}{share(100, 0.35)}Lathe's strategies whose mean is worse than "
        f"random at one of these numbers of evaluations: {worse('mean')}. Those worse beyond their "
        f"interval: {worse('high')}.",
        110,
    )


def plot(result: dict, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    for number, (name, found) in enumerate(result["strategies"].items()):
        values = found["regret"]
        style = ":" if name.startswith("nni-") else "-"
        color = plt.get_cmap("tab20").colors[number]
        axes.plot(result["evaluations"], values["mean"], style, color=color, label=LABELS[name])
        axes.fill_between(
            result["evaluations"],
            values["low"],
            values["high"],
            color=color,
            alpha=0.12,
            linewidth=0,
        )
    axes.axhline(result["regret_when_all_are_evaluated"], color="0.4", linestyle="--", linewidth=1)
    axes.annotate(
        "all cells evaluated",
        (result["evaluations"][0], result["regret_when_all_are_evaluated"]),
        textcoords="offset points",
        xytext=(0, -11),
        color="0.3",
        fontsize=9,
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("evaluations")
    axes.set_ylabel("mean regret (points of test accuracy)")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
