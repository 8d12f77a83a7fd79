"""What a searched subgraph of a teacher is worth, beside subgraphs that one makes by hand or at random.

python tools/studies/subgraph.py [RECIPE] [--set KEY=VALUE ...] [--shares 0.5,0.3,0.7] [--seeds 3]
    [--work FOLDER] [--page PAGE]

RECIPE is one of method subgraph, subgraph_study.toml by default; its teacher, data, targets and selection
count, its budgets do not: every subgraph keeps a share of the teacher's latency as predicted on all targets,
and comes as near to it as the widths allow. All begin with the teacher's weights (of a layer the most
important channels), unless their name ends in "fresh", and get the same distillation. At the end all are
measured whole.

- found: by gates; found-labels: with labels in place of the teacher; found-macs and found-uniform: with
  multiply-accumulates, or nothing, in place of latency as the price of a part.
- importance, least-blocks, shallower, mixed, narrower: the other proposals of the method.
- random-0 to random-4: drawn from the space, near the limit, for the first seed.
- found-fresh: as found, from new weights.
- uniform: the teacher's own kind with fewer channels in all layers, also between blocks, from new weights:
  the widest whose measured latency keeps the share. Only for factories that take a width.

All of them at the first share; found, narrower, found-fresh and uniform at the others, which gives a curve.
FOLDER keeps everything that was done, rows.jsonl a line for each trained network: a study that was ended goes
on. summary.json has means and paired differences to "found" with intervals by Student's t over seeds, PAGE a
page and a plot.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import torch
from scipy.stats import t
from subgraph_page import write_page
from torch import nn

from devices.measurement import Measurement, Outcome
from devices.target import Target
from latency_db.store import Workload, open_store
from pipeline.data.base import Dataset
from pipeline.distill.settings import DistillationSettings
from pipeline.distill.targets import targets_for
from pipeline.distill.training import accuracy, fit
from pipeline.errors import TeacherError
from pipeline.export.base import exporter_identity, format_of
from pipeline.methods.subgraph.costs import Costs
from pipeline.methods.subgraph.proposals import proposal
from pipeline.methods.subgraph.selection import select
from pipeline.methods.subgraph.settings import PROPOSALS, SubgraphSettings
from pipeline.progress import ConsoleReporter
from pipeline.recipe.beginnings import deciding
from pipeline.recipe.loading import load_recipe
from pipeline.run.context import Context
from pipeline.run.preparation import check_budgets, measure_blocks_of, prepare_task
from pipeline.spaces.teacher.space import TeacherSpace
from pipeline.stages.inputs.data import open_data
from pipeline.stages.inputs.importance import open_importance
from pipeline.stages.inputs.structures import open_network
from pipeline.stages.inputs.teacher import open_teacher
from pipeline.stages.latency.predictors import LatencyPredictors
from pipeline.stages.searching.proposals import costs_of
from pipeline.tables.building.measuring import ModuleWorkload, measure
from pipeline.tables.building.networks import measure_networks, network_workloads
from pipeline.teachers.building import network_of_factory
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder

Counts = dict[str, int]
SEARCHED = {
    "found": {},
    "found-labels": {"data_term": "labels"},
    "found-macs": {"cost": "macs"},
    "found-uniform": {"cost": "uniform"},
}
RANDOM, NEAR = 5, 0.97
"""How many are drawn, and which share of the limit they take at least."""
CURVE = ("found", "narrower", "found-fresh", "uniform")
"""Arms at every share."""
WIDTHS = range(15, 3, -1)
"""Of narrowed networks; the teachers' is 16."""


def drawn(costs: Costs, seed: int) -> Counts | None:
    """A random subgraph near the limit, if one is found."""
    space, generator = costs.space, random.Random(seed)
    architecture = space.sample(generator)
    for _ in range(20_000):
        excess = costs.excess(space.counts(architecture))
        if NEAR <= excess <= 1:
            return space.counts(architecture)
        other = space.mutate(architecture, generator)
        step = costs.excess(space.counts(other))
        if (step < excess) == (excess > 1) or generator.random() < 0.02:
            architecture = other
    return None


class Study:
    """Teacher, data and tables for one share of the teacher's latency, and rows on the disk."""

    def __init__(self, share: float, arms: tuple[str, ...] | None, folder: Path, context: Context) -> None:
        self.share, self._arms, self._folder, self.context = share, arms, folder, context
        self.task = prepare_task(context)
        tables = measure_blocks_of(context, self.task)
        _, predictors = check_budgets(context, self.task, tables)
        self.predictors: LatencyPredictors = predictors
        self.place = StageFolder(context.work.find(self.task.data.arrays).parent)
        assert self.task.importance is not None
        importance = open_importance(self.task.importance, self.place)
        self.matter = {
            name: value.sort(descending=True).values.tolist() for name, value in importance.items()
        }
        self.space = replace(self.task.plan, importance=self.task.importance).open(self.place)
        assert isinstance(self.space, TeacherSpace)
        self.costs = costs_of(self.space, predictors, "latency")
        self.dataset: Dataset = open_data(self.task.data, self.place)
        self.teacher = open_teacher(self.task.teacher, self.place)
        path = self._folder / "rows.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = [row for row in map(json.loads, lines) if row["share"] == share]

    def run(self, seeds: int) -> None:
        """What is not done yet."""
        for seed in range(seeds):
            for name, counts, network in self.arms(seed):
                self.train(name, seed, counts, network)
            if self.due("found-fresh", seed):
                counts = next(r["counts"] for r in self.rows if (r["arm"], r["seed"]) == ("found", seed))
                torch.manual_seed(seed)
                self.train("found-fresh", seed, counts, self.fresh(counts))
            if self.due("uniform", seed) and self.uniform is not None:
                torch.manual_seed(seed)
                self.train("uniform", seed, None, self.of_width(self.uniform[0]))

    @cached_property
    def uniform(self) -> tuple[int, dict[str, float]] | None:
        """The widest narrowed network that keeps the share, and its latencies as shares of the teacher's."""
        (config,) = self.context.recipe.teacher
        if config.factory is None:
            return None
        try:
            self.of_width(WIDTHS[0])
        except TeacherError:  # It takes no width.
            return None
        shape = self.task.data.input_shape
        space, reference = self.space, [self.space.reference()]
        bench = self.context.services.bench(self.context.protocol)
        wanted: dict[Target, list[ModuleWorkload]] = {}
        for target in (each.target for each in self.context.targets):
            fmt = format_of(target)
            content = {"factory": config.factory, **config.arguments, **exporter_identity(fmt)}
            wanted[target] = network_workloads(space, reference, fmt) + [
                ModuleWorkload(
                    Workload.of("network", f"width {width}", {**content, "width": width}),
                    partial(self.of_width, width),
                    shape,
                )
                for width in WIDTHS
            ]
        outcomes = measure(bench, wanted, "networks")
        shares = {
            str(target): _relative([outcomes[target][each.workload.identity] for each in each_wanted])[1:]
            for target, each_wanted in wanted.items()
        }
        for place, width in enumerate(WIDTHS):
            its = {target: of[place] for target, of in shares.items()}
            if all(share is not None and share <= self.share for share in its.values()):
                return width, {target: share for target, share in its.items() if share is not None}
        return None

    def of_width(self, width: int) -> nn.Module:
        """A network of the teacher's kind with weights that are drawn."""
        (config,) = self.context.recipe.teacher
        assert config.factory is not None
        return network_of_factory(config.factory, {**config.arguments, "width": width})

    def arms(self, seed: int) -> Iterator[tuple[str, Counts, nn.Module]]:
        """Name, numbers of parts, and the network with the weights that are left of the teacher."""
        for name, changes in SEARCHED.items():
            if self.due(name, seed):
                yield name, *self._selected(name, changes, seed)
        for kind in PROPOSALS:
            if kind != "gates" and self.due(kind, seed):
                counts = proposal(kind, self.costs, self.matter)
                if counts is not None:
                    yield kind, counts, self._inherited(counts)
        for number in range(RANDOM if seed == 0 else 0):
            if self.due(f"random-{number}", seed):
                counts = drawn(self.costs, number)
                if counts is not None:
                    yield f"random-{number}", counts, self._inherited(counts)

    def due(self, name: str, seed: int) -> bool:
        return not self.done(name, seed) and (self._arms is None or name in self._arms)

    def done(self, name: str, seed: int) -> bool:
        return any((row["arm"], row["seed"]) == (name, seed) for row in self.rows)

    def train(self, name: str, seed: int, counts: Counts | None, network: nn.Module) -> None:
        """Distil, test, and keep a row."""
        if self.done(name, seed):
            return
        settings = self.context.recipe.distil
        checkpoint = self._folder / f"{name}-{self.share}-{seed}.pt"
        fit(
            network.requires_grad_(True),
            self.dataset,
            settings,
            seed=seed,
            targets=targets_for(self.teacher, self.dataset, settings),
            checkpoint=checkpoint,
        )
        row = {
            "share": self.share,
            "arm": name,
            "seed": seed,
            "accuracy": accuracy(network, self.dataset.test, self.dataset.preprocessing),
            "predicted_share": None if counts is None else self.costs.excess(counts),
            "counts": counts,
        }
        self.rows.append(row)
        with (self._folder / "rows.jsonl").open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        checkpoint.unlink(missing_ok=True)
        print(f"{self.share} {name:>14} seed {seed}: {row['accuracy']:.2%}", flush=True)

    def fresh(self, counts: Counts) -> nn.Module:
        """A network with weights that are drawn."""
        space = replace(self.task.plan, importance=None).open(self.place)
        assert isinstance(space, TeacherSpace)
        return space.build(space.architecture(counts))

    def summary(self) -> dict:
        """Accuracy, measured latency and difference to ``found`` of every arm."""
        space = self.space
        built = {
            (row["arm"], row["seed"]): space.architecture(row["counts"]) for row in self.rows if row["counts"]
        }
        distinct = list(dict.fromkeys([space.reference(), *built.values()]))
        targets = [each.target for each in self.context.targets]
        bench = self.context.services.bench(self.context.protocol)
        outcomes = measure_networks(bench, space, dict.fromkeys(targets, distinct))
        shares = {
            str(target): dict(zip(distinct, _relative(outcomes[target]), strict=True)) for target in targets
        }
        found = {row["seed"]: row["accuracy"] for row in self.rows if row["arm"] == "found"}
        arms = {}
        for name in dict.fromkeys(row["arm"] for row in self.rows):
            rows = [row for row in self.rows if row["arm"] == name]
            paired = [row["accuracy"] - found[row["seed"]] for row in rows if row["seed"] in found]
            fixed = self.uniform[1] if name == "uniform" and self.uniform else None
            arms[name] = {
                "accuracy": statistics.mean(row["accuracy"] for row in rows),
                "accuracies": [row["accuracy"] for row in rows],
                "less_than_found": None if name == "found" else interval([-each for each in paired]),
                "of_the_teacher": {
                    target: [fixed[target] if fixed else of[built[name, row["seed"]]] for row in rows]
                    for target, of in shares.items()
                },
            }
        teacher_ms = {str(target): outcomes[target][0].latency.value_ns / 1e6 for target in targets}
        return {
            "train_images": len(self.dataset.train),
            "image_size": self.task.data.input_shape[-1],
            "teacher_accuracy": self._teacher_accuracy(),
            "teacher_ms": teacher_ms,
            "arms": arms,
        }

    def _teacher_accuracy(self) -> float:
        return accuracy(self.teacher.module, self.dataset.test, self.dataset.preprocessing)

    def _selected(self, name: str, changes: dict, seed: int) -> tuple[Counts, nn.Module]:
        settings: SubgraphSettings = self.context.recipe.subgraph.selection.model_copy(update=changes)
        targets = targets_for(self.teacher, self.dataset, DistillationSettings(augment=settings.augment))
        assert targets is not None
        found = select(
            open_network(self.task.teacher, self.task.data.input_shape, self.place),
            self.task.data.input_shape,
            self.space.config.structures,
            teacher=targets,
            dataset=self.dataset,
            settings=settings,
            costs=costs_of(self.space, self.predictors, settings.cost),
            seed=seed,
            checkpoint=self._folder / f"{name}-{self.share}-{seed}-selection.pt",
        )
        return dict(found.counts), found.network

    def _inherited(self, counts: Counts) -> nn.Module:
        return self.space.build(self.space.architecture(counts))


def _relative(outcomes: Sequence[Outcome]) -> list[float | None]:
    """Latencies as shares of the first; None where a network could not be measured."""
    latencies = [each.latency.value_ns if isinstance(each, Measurement) else None for each in outcomes]
    if latencies[0] is None:
        raise SystemExit("the teacher could not be measured")
    return [None if each is None else each / latencies[0] for each in latencies]


def interval(values: list[float]) -> dict[str, float | None]:
    """Mean and 95 % interval by Student's t over seeds."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}


def main() -> None:
    """Run what is left, then write the summary and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", nargs="?", default=str(Path(__file__).with_name("subgraph_study.toml")))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--shares", default="0.5")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("subgraph-study"))
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    folder: Path = arguments.work
    document = {}
    with open_store(str(folder / "latency.db")) as store:
        for place, share in enumerate(map(float, arguments.shares.split(","))):
            settings = [*arguments.set, f"target.*.budget={share}x teacher"]
            recipe, text = load_recipe(arguments.recipe, settings)
            work = WorkFolder(folder / "work")
            with work.opened(deciding(recipe)):
                context = Context(recipe, text, work, store, ConsoleReporter())
                study = Study(share, CURVE if place else None, folder, context)
                study.run(arguments.seeds)
                document[str(share)] = study.summary()
    (folder / "summary.json").write_text(json.dumps(document, indent=1))
    print(json.dumps(document, indent=1))
    if arguments.page:
        write_page(document, arguments.page)


if __name__ == "__main__":
    main()
