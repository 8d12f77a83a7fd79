"""Makes docs/results/accuracy.md of results of tools/bench/own_device.py: `tools/accuracy_page.py FOLDER`.

The results in FOLDER are rounded and kept in docs/results/own-device, one file for each target and input. The
figures and the page's tables are then made from all that is kept there; without FOLDER they are made again.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import NormalDist
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "results" / "accuracy.md"
KEPT = DOCS / "results" / "own-device"
BEGIN, END = "<!-- figures -->\n", "<!-- end -->"
HELD, MISSED, RAW = "#4878a8", "#d55e00", "#606060"
PREDICTORS = {
    "model": "model",
    "ceiling": "measured again",
    "sum and line": "sum of blocks, with a line",
    "plain sum": "plain sum of blocks",
    "macs and line": "MACs, with a line",
}
LATENCIES = ("predicted_ns", "low_ns", "high_ns", "measured_ns", "repeated_ns")
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Result:
    """What the benchmark says of one target and input."""

    document: dict[str, Any]

    @property
    def target(self) -> str:
        return str(self.document["target"])

    @property
    def input(self) -> str:
        return str(self.document["input"])

    @property
    def name(self) -> str:
        return "-".join([*re.findall(r"\w+", self.target), self.input])

    @property
    def order(self) -> tuple[list[int], str]:
        return [int(size) for size in self.input.split("x")], self.target

    def column(self, name: str) -> Floats:
        """A latency of every network, milliseconds."""
        return np.array([network[f"{name}_ns"] for network in self.document["networks"]]) / 1e6

    def measured(self, *, again: bool = False, paced: bool = True) -> Floats:
        """The first latency of every network, or the second one, milliseconds; as they are, unless paced."""
        latency, slowdown = ("repeated", "repeated_slowdown") if again else ("measured", "slowdown")
        slowdowns = [network[slowdown] if paced else 1 for network in self.document["networks"]]
        found: Floats = self.column(latency) / slowdowns
        return found


def read(folder: Path) -> list[Result]:
    """The results in a folder: files of one result, or of several as the benchmark prints them."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_bytes())
        except ValueError as error:
            sys.exit(f"{path} is no result of tools/bench/own_device.py: {error}")
        for each in document.get("own_device", [document]):
            if "as_measured" not in each:
                sys.exit(f"{path} is no result of this version of tools/bench/own_device.py")
            found.append(Result(each))
    return sorted(found, key=lambda result: result.order)


def keep(results: Iterable[Result], folder: Path) -> None:
    """Write each result to a file of its own: whole nanoseconds, other figures to 6 digits."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        networks = [_rounded(network) for network in result.document["networks"]]
        rest = _rounded({name: each for name, each in result.document.items() if name != "networks"})
        lines = ",\n  ".join(json.dumps(network) for network in networks)
        text = json.dumps(rest, indent=1).removesuffix("\n}")
        (folder / f"{result.name}.json").write_text(f'{text},\n "networks": [\n  {lines}\n ]\n}}\n')


def _rounded(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each, key) for key, each in value.items()}
    if isinstance(value, float):
        return round(value) if name in LATENCIES else float(f"{value:.6g}")
    return value


def draw(result: Result, folder: Path) -> None:
    """Predicted against measured latencies; how far they are off, by latency and by order of measuring."""
    figure, (above, middle, below) = plt.subplots(
        3, 1, figsize=(4.6, 8), height_ratios=(4, 2.5, 2), layout="constrained"
    )
    middle.sharex(above)
    measured, raw = result.measured(), result.measured(paced=False)
    predicted, low, high = map(result.column, ("predicted", "low", "high"))
    held = (low <= measured) & (measured <= high)
    ends = np.array([measured.min() / 1.15, measured.max() * 1.15])
    for band, colour in ((0.10, "#e4e4e4"), (0.05, "#cccccc")):
        above.fill_between(ends, ends * (1 - band), ends * (1 + band), color=colour, linewidth=0)
        for axes in (middle, below):
            axes.axhspan(-100 * band, 100 * band, color=colour, linewidth=0)
    above.plot(ends, ends, color="black", linewidth=0.5)
    order = np.arange(1, len(measured) + 1)
    below.scatter(order, off(predicted, raw), s=10, color=RAW, marker="+", label="as measured")
    for some, colour, marker, label in (
        (held, HELD, "o", "measured inside the interval"),
        (~held, MISSED, "D", "measured outside"),
    ):
        bars = {"fmt": marker, "color": colour, "markersize": 3, "elinewidth": 0.8, "label": label}
        x, y, down, up = measured[some], predicted[some], low[some], high[some]
        above.errorbar(x, y, yerr=(y - down, up - y), **bars)
        middle.errorbar(x, off(y, x), yerr=100 * np.array([y - down, up - y]) / x, **bars)
        below.scatter(order[some], off(y, x), s=10, color=colour, marker=marker)
    above.set(xscale="log", yscale="log", xlim=ends, ylim=ends, ylabel="predicted, ms")
    above.set_title(f"{result.target}, input {result.input}", fontsize=10)
    above.legend(fontsize=7, loc="upper left")
    reach = np.abs([off(low, measured), off(high, measured), off(predicted, raw)]).max()
    limit = next(each for each in (6, 12, 25, 50, 100, 1000) if each >= reach)
    middle.set(ylim=(-limit, limit), ylabel="off by, %", xlabel="measured, ms")
    below.set(ylim=(-limit, limit), ylabel="off by, %", xlabel="networks in the order of measuring")
    below.legend(fontsize=7, loc="upper left")
    for axis in (above.xaxis, above.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"accuracy-{result.name}.png", dpi=150)
    plt.close(figure)


def off(predicted: Floats, measured: Floats) -> Floats:
    """How far predictions are off, percent."""
    found: Floats = 100 * (predicted / measured - 1)
    return found


def tables(results: list[Result]) -> str:
    """The page's part between the marks."""
    compared = ("corrected to the table's canary", True), ("as measured", False)
    model = _table(
        (
            "measurements",
            "within 5 %",
            "within 10 %",
            "mean error",
            "Spearman (over the ceiling)",
            "in their interval",
            "measured again",
            "without the machine's part",
            "median offset",
        ),
        [result for result in results for _ in compared],
        [[how, *_figures(result, paced)] for result in results for how, paced in compared],
    )
    beside = _table(PREDICTORS.values(), results, map(_beside, results))
    cost = _table(
        (
            "blocks",
            "networks for the fit",
            "minutes",
            "verified after, minutes",
            "fresh networks",
            "left out",
            "estimates per second",
        ),
        results,
        map(_cost, results),
    )
    images = [f"![{r.target}, {r.input}](../figures/accuracy-{r.name}.png)" for r in results]
    pairs = "\n".join(f"| {a} | {b} |" for a, b in zip_longest(images[::2], images[1::2], fillvalue=""))
    return "\n\n".join(
        (
            model,
            "Mean error corrected to the table's canary, with Spearman in brackets, of each predictor:",
            beside,
            "What it took:",
            cost,
            f"| | |\n| --- | --- |\n{pairs}\n",
        )
    )


def _table(columns: Iterable[str], results: list[Result], rows: Iterable[list[str]]) -> str:
    cells = [["input", "target", *columns]]
    cells += [[result.input, f"`{result.target}`", *row] for result, row in zip(results, rows, strict=True)]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _figures(result: Result, paced: bool) -> list[str]:
    model = result.document["model" if paced else "as_measured"]
    ceiling = result.document["ceiling"]["spearman"]
    low, high, predicted = map(result.column, ("low", "high", "predicted"))
    factor = result.document["upper_factor_against_each_other"]
    first, again = (result.measured(again=again, paced=paced) for again in (False, True))
    return [
        percent(model["within_5_percent"]),
        percent(model["within_10_percent"]),
        percent(model["mape"], 2),
        _correlation(model)
        + (f" ({model['spearman'] / ceiling:.4f})" if model["spearman"] and ceiling else ""),
        *(share(((low <= each) & (each <= high)).tolist()) for each in (first, again)),
        share(((predicted / factor <= first) & (first <= predicted * factor)).tolist()),
        f"{np.median(off(predicted, first)):+.1f} %",
    ]


def _beside(result: Result) -> list[str]:
    known = {**result.document["baselines"], **result.document}
    return [
        f"{percent(known[name]['mape'], 2)} ({_correlation(known[name])})" if name in known else ""
        for name in PREDICTORS
    ]


def _cost(result: Result) -> list[str]:
    document = result.document
    failed = f" ({document['failed_blocks']} more cannot run)" if document["failed_blocks"] else ""
    return [
        f"{document['blocks']}{failed}",
        str(document["fitted_networks"]),
        f"{document['build_s'] / 60:.1f}",
        f"{document['verified_after_s'] / 60:.0f}",
        str(document["model"]["networks"]),
        str(document["invalid"]),
        f"{document['architectures_per_s'] / 1e6:.0f} million",
    ]


def _correlation(figures: dict[str, Any]) -> str:
    return "undefined" if figures["spearman"] is None else f"{figures['spearman']:.4f}"


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def share(held: list[bool]) -> str:
    """A share of cases with its 95 % interval (Wilson, 1927)."""
    low, high = wilson(sum(held), len(held))
    return f"{percent(sum(held) / len(held))} [{100 * low:.0f}, {100 * high:.0f}]"


def wilson(held: int, count: int) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.975)
    middle = (held + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * math.sqrt(held * (count - held) / count + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def with_tables(page: str, results: list[Result]) -> str:
    """The page with its part between the marks made anew."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{PAGE} lacks the lines {BEGIN.strip()} and {END}")
    return f"{before}{begin}\n{tables(results)}\n{end}{after}"


def main() -> None:
    if len(sys.argv) > 1:
        keep(read(Path(sys.argv[1])), KEPT)
    results = read(KEPT)
    for result in results:
        draw(result, DOCS / "figures")
    PAGE.write_text(with_tables(PAGE.read_text("utf-8"), results), "utf-8")


if __name__ == "__main__":
    main()
