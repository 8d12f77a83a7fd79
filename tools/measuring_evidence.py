"""Evidence for the choices of the measuring protocol: collects launches, plots docs/figures.

    python tools/measuring_evidence.py collect FOLDER [LAUNCHES]   # minutes; adds to what is there
    python tools/measuring_evidence.py plot FOLDER                 # into docs/figures; prints figures as JSON

Every launch is one fresh process with eight models, as in any batch. In every third, three hogs run beside.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "docs" / "figures"
HOGS = 3
SKIPPED = 5
"""The samples that the protocol's warm-up takes by count."""
ESTIMATORS: dict[str, Callable[[Any], float]] = {
    **{
        f"{level:g}": lambda samples, level=level: float(np.quantile(samples, level))
        for level in (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
    },
    "mean": lambda samples: float(np.mean(samples)),
}
CALM, BUSY = "#4878a8", "#c44e52"


@dataclass(frozen=True)
class Row:
    """One model in one launch; ``samples`` are those after the warm-up, nanoseconds."""

    runtime: str
    model: str
    hogs: int
    launch: dict[str, Any]

    @property
    def case(self) -> tuple[str, str]:
        return self.runtime, self.model

    @property
    def samples(self) -> list[int]:
        return self.launch["samples_ns"][SKIPPED:]


def collect(folder: Path, launches: int) -> None:
    sys.path.insert(0, str(ROOT / "tools" / "bench"))
    from models import make_models

    from devices.measurement import Measurement, MeasuringProtocol
    from devices.measuring import Job, measure
    from devices.target import Target

    files = make_models(folder / "models")
    # No warm-up: the start of a launch is part of the evidence.
    protocol = replace(MeasuringProtocol(), launches=1, max_launches=0, warmup_count=0, warmup_ns=0)
    with (folder / "launches.jsonl").open("a") as out:
        for number in range(launches):
            for runtime, models in files.items():
                hogs = HOGS if number % 3 == 2 else 0
                processes = [
                    subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(hogs)
                ]
                try:
                    jobs = [Job(name, path) for name, path in models.items()]
                    outcomes = measure(jobs, Target("host", runtime), protocol)
                finally:
                    for process in processes:
                        process.kill()
                        process.wait()
                for name, outcome in outcomes.items():
                    assert isinstance(outcome, Measurement), outcome
                    out.write(
                        json.dumps(asdict(Row(runtime, name, hogs, asdict(outcome.launches[0])))) + "\n"
                    )
            out.flush()
            print(f"{number + 1}/{launches}", file=sys.stderr)


def plot(folder: Path) -> None:
    rows = [Row(**json.loads(line)) for line in (folder / "launches.jsonl").read_text().splitlines()]
    FIGURES.mkdir(exist_ok=True)
    document = {
        "launches_of_a_model": len(rows),
        "with_hogs": sum(row.hogs > 0 for row in rows),
        "nine_of_ten_launches_within": estimators(rows),
        "between_launches_cv_of_headline": between(rows),
    }
    warm_up(rows)
    disturbance(rows)
    print(json.dumps(document, indent=1))


def chosen(rows: Iterable[Row], case: tuple[str, str], busy: bool) -> list[Row]:
    return [row for row in rows if row.case == case and (row.hogs > 0) == busy]


def estimators(rows: list[Row]) -> dict[str, dict[str, float]]:
    """How far launches are from the median of the calm ones, by estimator, calm and with hogs."""
    found: dict[str, dict[str, float]] = {"calm": {}, "hogs": {}}
    for name, estimate in ESTIMATORS.items():
        for busy, label in ((False, "calm"), (True, "hogs")):
            deviations: list[float] = []
            for case in {row.case for row in rows}:
                middle = np.median([estimate(row.samples) for row in chosen(rows, case, False)])
                deviations += [abs(estimate(row.samples) / middle - 1) for row in chosen(rows, case, busy)]
            found[label][name] = round(float(np.quantile(deviations, 0.9)), 5)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axis, (label, colour) in zip(axes, (("calm", CALM), ("hogs", BUSY)), strict=True):
        axis.bar(list(found[label]), [100 * value for value in found[label].values()], color=colour)
        axis.set(title=f"{label}", xlabel="quantile of a launch's samples", yscale="log")
    axes[0].set_ylabel("9 of 10 launches are within, %")
    save(figure, "estimators")
    return found


def between(rows: list[Row]) -> dict[str, float]:
    """Coefficient of variation of the 0.1 quantile between calm launches."""
    found = {}
    for case in sorted({row.case for row in rows}):
        values = [ESTIMATORS["0.1"](row.samples) for row in chosen(rows, case, False)]
        found[" ".join(case)] = round(float(np.std(values) / np.mean(values)), 5)
    return found


def warm_up(rows: list[Row]) -> None:
    """Each inference at the start of a launch against the headline of its launch."""
    figure, axis = plt.subplots(figsize=(9, 3.6))
    for case in sorted({row.case for row in rows}):
        curves = [
            np.array([row.launch["first_inference_ns"], *row.launch["samples_ns"][:30]])
            / ESTIMATORS["0.1"](row.samples)
            for row in chosen(rows, case, False)
        ]
        style = "-" if case[0] == "onnxruntime" else "--"
        axis.plot(range(1, 32), np.median(curves, axis=0), style, label=" ".join(case))
    axis.axvline(SKIPPED + 1.5, color="grey", linewidth=1)
    axis.set(
        xlabel="inference in its launch (left of the grey line: the warm-up by count)",
        ylabel="latency / headline",
    )
    axis.legend(fontsize=6, ncol=2)
    save(figure, "warm_up")


def disturbance(rows: list[Row]) -> None:
    """What a launch says of its disturbance, against how far its headline moved."""
    estimate = ESTIMATORS["0.1"]
    usual = {
        case: np.median([estimate(row.samples) for row in chosen(rows, case, False)])
        for case in {row.case for row in rows}
    }
    best = {
        runtime: min(min(row.launch["canary_ns"]) for row in rows if row.runtime == runtime)
        for runtime in {row.runtime for row in rows}
    }
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True)
    for busy, colour, label in ((False, CALM, "calm"), (True, BUSY, "hogs")):
        some = [row for row in rows if (row.hogs > 0) == busy]
        moved = [100 * (estimate(row.samples) / usual[row.case] - 1) for row in some]
        usage = [row.launch["usage"] for row in some]
        signs = {
            "canary slower than its best by, %": [
                100 * (max(row.launch["canary_ns"]) / best[row.runtime] - 1) for row in some
            ],
            "waiting for a processor, % of the time": [
                100 * each["waiting_ns"] / each["wall_ns"] for each in usage
            ],
            "other processes, % of a core": [100 * each["other_cpu_ns"] / each["wall_ns"] for each in usage],
        }
        for axis, (name, sign) in zip(axes, signs.items(), strict=True):
            axis.scatter(sign, moved, s=4, color=colour, label=label)
            axis.set_xlabel(name)
            axis.set_xscale("symlog", linthresh=1)
            axis.set_yscale("symlog", linthresh=1)
    axes[0].set_ylabel("headline of the launch moved by, %")
    axes[0].legend(fontsize=7)
    save(figure, "disturbance")


def save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(FIGURES / f"{name}.png", dpi=110)


if __name__ == "__main__":
    where = Path(sys.argv[2])
    where.mkdir(parents=True, exist_ok=True)
    if sys.argv[1] == "collect":
        collect(where, int(sys.argv[3]) if len(sys.argv) > 3 else 45)
    else:
        plot(where)
