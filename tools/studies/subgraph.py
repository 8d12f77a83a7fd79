"""What a searched subgraph of a teacher is worth, beside subgraphs that one makes by hand or at random.

python tools/studies/subgraph.py RECIPE [--share 0.5] [--seeds 3] [--arms found,narrower] [--work FOLDER]

RECIPE is one of method subgraph; its teacher, data, targets and selection count, its budgets do not: every
subgraph keeps --share of the teacher's latency as predicted on all targets, and comes as near to it as the
widths allow. All begin with the teacher's weights (of a layer the most important channels), unless
their name ends in "fresh", and get the same distillation. At the end all are measured whole.

- found: by gates; found-labels: with labels in place of the teacher; found-macs and found-uniform: with
  multiply-accumulates, or nothing, in place of latency as the price of a part.
- importance, least-blocks, shallower, mixed, narrower: the other proposals of the method.
- random-0 to random-4: drawn from the space, near the limit.
- found-fresh: as found, from new weights.

FOLDER keeps everything that was done, rows.jsonl a line for each trained network: a study that was ended goes
on. summary.json gets means and paired differences to "found" with a bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from latency_db.store import open_store
from pipeline.data.base import Dataset
from pipeline.distill.settings import DistillationSettings
from pipeline.distill.targets import targets_for
from pipeline.distill.training import accuracy, fit
from pipeline.methods.subgraph.costs import Costs
from pipeline.methods.subgraph.proposals import proposal
from pipeline.methods.subgraph.selection import select
from pipeline.methods.subgraph.settings import PROPOSALS, SubgraphSettings
from pipeline.progress import ConsoleReporter
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
from pipeline.tables.building.networks import measure_networks
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
    """Teacher, data, tables, and rows on the disk."""

    def __init__(self, arguments: argparse.Namespace, context: Context) -> None:
        self._arguments, self._folder = arguments, Path(arguments.work)
        self.context = context
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
        self.rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

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
        for number in range(RANDOM):
            if self.due(f"random-{number}", seed):
                counts = drawn(self.costs, number)
                if counts is not None:
                    yield f"random-{number}", counts, self._inherited(counts)

    def due(self, name: str, seed: int) -> bool:
        arms = self._arguments.arms
        return not self.done(name, seed) and (arms is None or name in arms.split(","))

    def done(self, name: str, seed: int) -> bool:
        return any((row["arm"], row["seed"]) == (name, seed) for row in self.rows)

    def train(self, name: str, seed: int, counts: Counts, network: nn.Module) -> None:
        """Distil, test, and keep a row."""
        if self.done(name, seed):
            return
        settings = self.context.recipe.distil
        checkpoint = self._folder / f"{name}-{seed}.pt"
        fit(
            network.requires_grad_(True),
            self.dataset,
            settings,
            seed=seed,
            targets=targets_for(self.teacher, self.dataset, settings),
            checkpoint=checkpoint,
        )
        row = {
            "arm": name,
            "seed": seed,
            "accuracy": accuracy(network, self.dataset.test, self.dataset.preprocessing),
            "predicted_share": self.costs.excess(counts),
            "counts": counts,
        }
        self.rows.append(row)
        with (self._folder / "rows.jsonl").open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        checkpoint.unlink(missing_ok=True)
        print(f"{name:>14} seed {seed}: {row['accuracy']:.2%}", flush=True)

    def fresh(self, counts: Counts) -> nn.Module:
        """A network with weights that are drawn."""
        space = replace(self.task.plan, importance=None).open(self.place)
        assert isinstance(space, TeacherSpace)
        return space.build(space.architecture(counts))

    def summary(self) -> dict:
        """Accuracy, measured latency and difference to ``found`` of every arm."""
        space, protocol = self.space, self.context.protocol
        architectures = {}
        for row in self.rows:
            counts = space.counts(space.architecture(row["counts"]))
            architectures[row["arm"], row["seed"]] = space.architecture(counts)
        distinct = list(dict.fromkeys(architectures.values()))
        targets = [each.target for each in self.context.targets]
        bench = self.context.services.bench(protocol)
        outcomes = measure_networks(bench, space, dict.fromkeys(targets, distinct))
        found = {row["seed"]: row["accuracy"] for row in self.rows if row["arm"] == "found"}
        generator, arms = np.random.default_rng(0), {}
        for name in dict.fromkeys(row["arm"] for row in self.rows):
            rows = [row for row in self.rows if row["arm"] == name]
            paired = [row["accuracy"] - found[row["seed"]] for row in rows if row["seed"] in found]
            means = [np.mean(generator.choice(paired, len(paired))) for _ in range(2000)] if paired else []
            arms[name] = {
                "accuracy": float(np.mean([row["accuracy"] for row in rows])),
                "seeds": len(rows),
                "difference_to_found": float(np.mean(paired)) if paired else None,
                "interval": list(map(float, np.quantile(means, [0.025, 0.975]))) if means else None,
                "latency_ms": {
                    str(target): [
                        round(outcome.latency.value_ns / 1e6, 4)
                        for row in rows
                        if hasattr(
                            outcome := outcomes[target][distinct.index(architectures[name, row["seed"]])],
                            "latency",
                        )
                    ]
                    for target in targets
                },
            }
        return {"teacher_accuracy": self._teacher_accuracy(), "arms": arms}

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
            checkpoint=self._folder / f"{name}-{seed}-selection.pt",
        )
        return dict(found.counts), found.network

    def _inherited(self, counts: Counts) -> nn.Module:
        return self.space.build(self.space.architecture(counts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", help="only these, separated by commas")
    parser.add_argument("--work", default="subgraph-study")
    arguments = parser.parse_args()
    recipe, text = load_recipe(arguments.recipe, [f"target.*.budget={arguments.share}x teacher"])
    work = WorkFolder(Path(arguments.work) / "work")
    with (
        work.opened(recipe.model_dump(mode="json")),
        open_store(str(Path(arguments.work) / "latency.db")) as store,
    ):
        study = Study(arguments, Context(recipe, text, work, store, ConsoleReporter()))
        for seed in range(arguments.seeds):
            for name, counts, network in study.arms(seed):
                study.train(name, seed, counts, network)
            if study.due("found-fresh", seed):
                counts = next(r["counts"] for r in study.rows if (r["arm"], r["seed"]) == ("found", seed))
                torch.manual_seed(seed)
                study.train("found-fresh", seed, counts, study.fresh(counts))
        document = study.summary()
    path = Path(arguments.work) / "summary.json"
    path.write_text(json.dumps(document, indent=1))
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
