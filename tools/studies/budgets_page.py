"""The page and the plot of the study of budgets, from its summary."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

NAMES = {"winner": "Lathe's winner", "plain_sum": "plain sum's choice"}


def write_page(result: dict, page: Path) -> None:
    """The page, and the plot beside the other figures."""
    plot(result, page.parents[1] / "figures" / "budgets.png")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text(result))


def text(result: dict) -> str:
    targets = result["targets"]
    count = next(iter(targets.values()))["budgets"]
    return f"""# Do budgets hold?

`python tools/studies/budgets.py --scale {result["scale"]} --page docs/results/budgets.md` wrote this page.

{count} budgets on each of {len(targets)} targets of one machine are spread from the fastest to the
slowest network of the default mobile space for {result["side"]}x{result["side"]} images. Under each
budget, the search of a run looks for the network with the most multiply-accumulates. Nothing is trained.
The scores are made up to drive every search to its limit, where budgets break most easily. The winner is
compiled and measured as in a run. A candidate that breaks the budget is rejected, and the next one is
tried. After all budgets are done, every winner is measured once more.

The comparison is the network that the same strategy finds if it takes the sum of the blocks' latencies
for the network's latency, without an interval and without measuring, as Once-for-All does
([1908.09791](https://arxiv.org/abs/1908.09791)).

A budget is kept if the upper end of the measured interval is within it.

{summary(targets)}

{sizes(targets)}

![Measured latency over the limit, by budget](../figures/budgets.png)

## Every budget

{table(result["rows"])}
"""


def summary(targets: dict) -> str:
    lines = [
        "| target | network | found | kept when measured | kept when measured again | value of the second "
        "within the limit | largest share of the limit | mean share | mean error of the prediction |",
        "| --- |" + " --- |" * 8,
    ]
    for target, figures in targets.items():
        for kind, name in NAMES.items():
            found = figures[kind]
            if found["networks"]:
                lines.append(
                    f"| {target} | {name} | {found['networks']} of {figures['budgets']} "
                    f"| {found['kept_when_measured']} | {found['kept_when_measured_again']} "
                    f"| {found['within_by_value_again']} | {found['largest_share_of_limit_again']:.3f} "
                    f"| {found['mean_share_of_limit_again']:.3f} "
                    f"| {found['mean_prediction_error']:+.1%} |"
                )
    return "\n".join(lines)


def sizes(targets: dict) -> str:
    """What the budgets were used for."""
    ratios = [
        f"{figures['mean_macs_over_plain_sum']:.2f} times on {target}"
        for target, figures in targets.items()
        if figures["mean_macs_over_plain_sum"]
    ]
    return f"""On average the winner has {" and ".join(ratios)} the multiply-accumulates of the plain sum's
choice. If the sum of blocks is too high, its choice is smaller than the budget would allow. If the sum is too
low, the budget is broken."""


def table(rows: list[dict]) -> str:
    lines = [
        "| target | limit | predicted | measured | measured again | kept again | rejected before "
        "| plain sum: predicted | measured again | kept again |",
        "| --- |" + " --- |" * 9,
    ]
    for row in rows:
        cells = [row["target"], f"{row['limit_ms']:.4f} ms"]
        cells += _cells(row, "winner") if row["winner"] else [row["error"], "", "", ""]
        cells.append(str(len(row["rejected"])))
        plain = _cells(row, "plain_sum") if row["plain_sum"] else ["nothing found", "", "", ""]
        cells += [plain[0], *plain[2:]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(row: dict, kind: str) -> list[str]:
    found, again = row[kind], row["again"][kind]
    kept = "yes" if again["kept"] else "**no**"
    return [f"{found['predicted_ms']:.4f}", f"{found['ms']:.4f}", f"{again['ms']:.4f}", kept]


def plot(result: dict, path: Path) -> None:
    targets = list(result["targets"])
    figure, panels = plt.subplots(
        1, len(targets), figsize=(4.6 * len(targets), 4), layout="constrained", sharey=True, squeeze=False
    )
    for axes, target in zip(panels[0], targets, strict=True):
        rows = [row for row in result["rows"] if row["target"] == target]
        for kind, marker in (("winner", "o"), ("plain_sum", "x")):
            here = [row for row in rows if row[kind]]
            limits = [row["limit_ms"] for row in here]
            measured = [row["again"][kind]["ms"] / row["limit_ms"] for row in here]
            upper = [row["again"][kind]["upper_ms"] / row["limit_ms"] for row in here]
            predicted = [row[kind]["predicted_ms"] / row["limit_ms"] for row in here]
            bars = [[0.0] * len(here), [high - value for high, value in zip(upper, measured, strict=True)]]
            drawn = axes.errorbar(
                limits, measured, yerr=bars, fmt=marker, markersize=5, label=f"{NAMES[kind]}, measured again"
            )
            axes.plot(
                limits,
                predicted,
                linestyle="none",
                marker="_",
                markersize=9,
                color=drawn[0].get_color(),
                label=f"{NAMES[kind]}, predicted",
            )
        axes.axhline(1.0, color="0.4", linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("budget (ms)")
        axes.set_title(target, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("latency over the budget")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
