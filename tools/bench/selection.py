"""Time and memory of exact selections at DNA's size, beside HiGHS, as JSON.

python tools/bench/selection.py [SEEDS] [LIST_SEEDS]

The spaces have 6^19 networks: DNA's six blocks with 6 to 1296 evaluated paths each, or its 19 layers with 6
operations each. "realistic" costs follow the MACs and parameters of inverted residuals, with a spread of
their own on each target, and losses fall with the parameters; "random" losses and costs are uniform and
independent. All numbers are made up: what counts here is the work, not the networks.
The same best selections are looked for by the integer programmes of HiGHS, which scipy brings; LIST_SEEDS of
the realistic cases also for lists of the ``LISTED`` best, for which each selection found is excluded by a
constraint more and the programme solved again. A ratio above 1 says that HiGHS takes longer.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import time

import numpy as np

from pipeline.search.selection.options import StageOptions
from pipeline.search.selection.selection import select

LAYERS = (2, 4, 4, 4, 4, 1)
CHANNELS = (24, 40, 80, 112, 192, 320)
SIZES = (56, 28, 14, 14, 7, 7)
EXPANSIONS = np.repeat([3, 6], 3)
KERNELS = np.tile([3, 5, 7], 2)
SHARES = (0.05, 0.4)
COUNTS = (1, 10, 100)
LISTED = (20, 50)


def realistic_layer(generator: np.random.Generator, channels: int, size: int, targets: int) -> StageOptions:
    parameters = EXPANSIONS * channels * (2 * channels + KERNELS**2)
    macs = parameters * size**2
    costs = {"macs": macs.astype(float), "parameters": parameters.astype(float)}
    for target in range(targets):
        exponent = generator.uniform(0.7, 1.0)
        costs[f"target {target}"] = macs**exponent * np.exp(0.15 * generator.standard_normal(6))
    gain = np.log(parameters / parameters[0]) * generator.uniform(0.02, 0.08)
    return StageOptions(0.3 - gain + 0.02 * generator.standard_normal(6), costs)


def paths(layers: list[StageOptions], generator: np.random.Generator) -> StageOptions:
    """Every path through the layers, evaluated and timed as a whole: not quite the sum."""
    loss, costs = layers[0].losses, layers[0].costs
    for layer in layers[1:]:
        loss = np.add.outer(loss, layer.losses).ravel()
        costs = {name: np.add.outer(cost, layer.costs[name]).ravel() for name, cost in costs.items()}
    for name, cost in costs.items():
        if name.startswith("target"):
            costs[name] = cost * np.exp(0.02 * generator.standard_normal(len(loss)))
    return StageOptions(loss + 0.01 * generator.standard_normal(len(loss)), costs)


def random_stage(options: int, targets: int, generator: np.random.Generator) -> StageOptions:
    names = [f"target {target}" for target in range(targets)]
    return StageOptions(generator.random(options), {name: generator.random(options) for name in names})


def space(form: str, kind: str, targets: int, seed: int) -> list[StageOptions]:
    generator = np.random.default_rng(seed)
    if kind == "random":
        sizes = [6**count for count in LAYERS] if form == "blocks" else [6] * sum(LAYERS)
        return [random_stage(size, targets, generator) for size in sizes]
    blocks = [
        [realistic_layer(generator, channels, size, targets) for _ in range(count)]
        for count, channels, size in zip(LAYERS, CHANNELS, SIZES, strict=True)
    ]
    if form == "layers":
        return list(itertools.chain.from_iterable(blocks))
    return [paths(layers, generator) for layers in blocks]


def limits_at(stages: list[StageOptions], share: float, names: list[str]) -> dict[str, float]:
    """Limits that lie at this share of the way from the smallest to the largest possible cost."""
    low, high = (
        np.array([sum(extreme(stage.costs[name]) for stage in stages) for name in names])
        for extreme in (np.min, np.max)
    )
    return dict(zip(names, (low + share * (high - low)).tolist(), strict=True))


def by_integer_programmes(
    stages: list[StageOptions], limits: dict[str, float], count: int = 1
) -> list[float]:
    """The smallest losses as HiGHS finds them, within its tolerances; fewer if there are no more."""
    from scipy.optimize import LinearConstraint, milp

    one_each = np.repeat(np.eye(len(stages)), [len(stage.losses) for stage in stages], axis=1)
    shares = [
        np.concatenate([stage.costs[name] for stage in stages]) / limit for name, limit in limits.items()
    ]
    losses = np.concatenate([stage.losses for stage in stages])
    constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(np.array(shares), -np.inf, 1)]
    found: list[float] = []
    while len(found) < count:
        solved = milp(
            losses,
            constraints=constraints,
            integrality=np.ones_like(losses),
            bounds=(0, 1),
            options={"mip_rel_gap": 0},
        )
        if not solved.success:
            break
        found.append(solved.fun)
        # Any other selection takes at least one other option.
        constraints.append(LinearConstraint(np.rint(solved.x), -np.inf, len(stages) - 1))
    return found


def side_by_side(form: str, targets: int, seeds: int, count: int) -> dict[str, object]:
    """Seconds of this solver and of HiGHS for the same list of best selections, over seeds and limits."""
    names = [f"target {target}" for target in range(targets)]
    own, highs, largest = [], [], 0.0
    for seed, share in itertools.product(range(seeds), SHARES):
        stages = space(form, "realistic", targets, seed)
        limits = limits_at(stages, share, names)
        started = time.perf_counter()
        best = select(stages, limits, count=count).best
        own.append(time.perf_counter() - started)
        started = time.perf_counter()
        losses = by_integer_programmes(stages, limits, count)
        highs.append(time.perf_counter() - started)
        assert len(losses) == len(best)
        largest = max([largest, *np.abs(np.subtract(losses, [each.loss for each in best]))])
    return {
        "form": form,
        "limits": targets,
        "count": count,
        "cases": len(own),
        "seconds_median": round(float(np.median(own)), 4),
        "highs_seconds_median": round(float(np.median(highs)), 4),
        "ratio_median": round(float(np.median(np.divide(highs, own))), 2),
        "ratio_least": round(float(np.min(np.divide(highs, own))), 2),
        "largest_difference": float(largest),
    }


def figures(form: str, kind: str, targets: int, with_sizes: bool, seeds: int) -> dict[str, object]:
    """Over seeds, limits and counts; the peak of memory is that of the process."""
    names = [f"target {target}" for target in range(targets)] + ["macs", "parameters"] * with_sizes
    seconds: dict[int, list[float]] = {count: [] for count in COUNTS}
    highs_seconds, differences = [], []
    unproved, infeasible = 0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed, share, count in itertools.product(range(seeds), SHARES, COUNTS):
        stages = space(form, kind, targets, seed)
        limits = limits_at(stages, share, names)
        started = time.perf_counter()
        selected = select(stages, limits, count=count)
        seconds[count].append(time.perf_counter() - started)
        unproved += not selected.exact
        infeasible += not selected.best
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed, share in itertools.product(range(seeds), SHARES):
        stages = space(form, kind, targets, seed)
        limits = limits_at(stages, share, names)
        best = select(stages, limits).best
        started = time.perf_counter()
        loss = min(by_integer_programmes(stages, limits), default=np.inf)
        highs_seconds.append(time.perf_counter() - started)
        differences.append(abs(loss - best[0].loss) if best else 0.0 if loss == np.inf else np.inf)
    return {
        "form": form,
        "kind": kind,
        "limits": len(names),
        "runs": 2 * seeds * len(COUNTS),
        "seconds_median": {count: round(float(np.median(each)), 3) for count, each in seconds.items()},
        "seconds_worst": {count: round(max(each), 3) for count, each in seconds.items()},
        "peak_mb": round(peak / 1024),
        "peak_mb_before": round(before / 1024),
        "infeasible": infeasible,
        "unproved": unproved,
        "highs_seconds_median": round(float(np.median(highs_seconds)), 3),
        "highs_seconds_worst": round(max(highs_seconds), 3),
        "highs_largest_difference": max(differences),
    }


def hopeless(targets: int) -> dict[str, object]:
    """A loss that is the cost on the first target: nearly a subset sum, so the proof is given up."""
    stages = [
        StageOptions(-layer.costs["target 0"] / 1e6, layer.costs)
        for layer in space("layers", "realistic", targets, 0)
    ]
    limits = limits_at(stages, 0.4, [f"target {target}" for target in range(targets)])
    started = time.perf_counter()
    selected = select(stages, limits)
    best = selected.best[0]
    return {
        "form": "layers",
        "kind": "loss is cost",
        "limits": targets,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "exact": selected.exact,
        "relative_gap": (best.loss - selected.bound) / abs(best.loss),
    }


def alone(call: str) -> dict[str, object]:
    """The result of a function of this file, called in a process of its own."""
    code = f"import json, selection; print(json.dumps(selection.{call}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=sys.path[0], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(seeds: int = 10, list_seeds: int = 2) -> None:
    cases = [*itertools.product(("blocks", "layers"), ("realistic", "random"), (1, 2, 3), (False,))]
    cases += [(form, "realistic", 3, True) for form in ("blocks", "layers")]
    found = [alone(f"figures(*{case!r}, {seeds})") for case in cases]
    found += [alone(f"hopeless({targets})") for targets in (1, 2, 3)]
    lists = [
        alone(f"side_by_side({form!r}, {targets}, {seeds}, {count})")
        for count, seeds in ((1, seeds), *((count, list_seeds) for count in LISTED))
        for form, targets in itertools.product(("blocks", "layers"), (1, 2, 3))
    ]
    print(json.dumps({"spaces": found, "beside_highs": lists}, indent=2))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
