"""Trainings that last for hours, ended by signals as those of a command: ``python -m ... WHAT FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from latency_db.store.store import open_store
from pipeline.cli.interrupts import ended_by_signals
from pipeline.methods.dna.run import score_blocks
from pipeline.progress import ConsoleReporter
from pipeline.recipe.loading import parse_recipe
from pipeline.run.context import Context
from pipeline.run.preparation import prepare_task
from pipeline.stages.student.distil import DistilInput, distil_student
from pipeline.work.folder import WorkFolder
from tests.pipeline.methods.dna import dna_parts
from tests.pipeline.run.made_up_run import PLAN, TARGET

LONG = 100_000
"""Epochs."""


def prepare(folder: Path, teacher: dict[str, Any]) -> None:
    """Train a teacher, then a student for long."""
    document = {
        "name": "long",
        "allow_chance": True,
        "data": {"kind": "digits", "train_limit": 100},
        "teacher": [{"kind": "train", "width": 4, "depth": 1, "training": teacher}],
        "space": PLAN,
        "target": [{"name": str(TARGET), "budget_ms": 1000}],
        "distil": {"epochs": LONG, "patience": LONG},
    }
    with (
        open_store(str(folder / "latency.db")) as store,
        WorkFolder(folder).opened() as work,
        ConsoleReporter() as reporter,
    ):
        context = Context(parse_recipe(document, folder), "", work, store, reporter)
        task = prepare_task(context)
        reference = task.plan.space.reference()
        context.do(
            distil_student,
            DistilInput(task.plan, reference, context.recipe.distil, 0, task.data, task.teacher),
        )


def score(folder: Path) -> None:
    """Train the blocks of DNA by two processes."""
    settings = dna_parts.SETTINGS.model_copy(update={"epochs": LONG})
    space, teacher, data = dna_parts.space(), dna_parts.teacher(), dna_parts.dataset()
    with ConsoleReporter().task("scoring the blocks", "blocks") as advance:
        score_blocks(
            space,
            teacher,
            data,
            settings,
            work=WorkFolder(folder),
            seed=3,
            workers=2,
            on_progress=advance,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, place = sys.argv[1], Path(sys.argv[2])
    with ended_by_signals(["run"], as_json=False):
        if what == "dna":
            score(place)
        else:
            prepare(place, {"epochs": LONG if what == "teacher" else 1, "patience": LONG})
