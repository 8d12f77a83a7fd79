"""The stages of method ``dna``: teacher cut, blocks evaluated, the best networks selected and measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BudgetError
from pipeline.methods.dna.result import BlockScores
from pipeline.search.base import Score
from pipeline.search.journal import Candidate
from pipeline.spaces.dna.config import DnaSpaceConfig, Shape
from pipeline.spaces.dna.space import DnaSpace
from pipeline.stages.context import Context, training_versions
from pipeline.stages.exploring import Learning
from pipeline.stages.inputs import Data, FrozenTeacher
from pipeline.stages.search import Round, Searched, described, round_inputs, shortlist
from pipeline.stages.space import Task

if TYPE_CHECKING:
    from pipeline.methods.dna.cutting import CutTeacher


@dataclass(frozen=True)
class Cut:
    """Where the teacher's blocks end: channels, height, width of each, and a digest of teacher and cuts."""

    shapes: tuple[Shape, ...]
    digest: str


@dataclass(frozen=True)
class Scores:
    """Of every path of every block."""

    blocks: tuple[BlockScores, ...]


def dna_space(context: Context, data: Data, teacher: FrozenTeacher) -> DnaSpace:
    """The space of ``[dna.space]``, or of the defaults for the teacher's blocks.

    Raises:
        TeacherError: the teacher cannot be cut into blocks, or a block has a stride that no student has.
    """
    config, shape = context.recipe.dna, data.summary.input_shape
    plan = config.space or DnaSpaceConfig.for_teacher(_cut(context, data, teacher).shapes, shape)
    return DnaSpace(plan, shape, len(data.summary.classes))


def dna_round(context: Context, task: Task, this: Round) -> Searched:
    """Rate the blocks, once for all rounds; select the best networks within the limits, and measure them.

    Raises:
        BudgetError: no network of the space keeps the budgets.
        DnaError: training diverged, or a worker was lost again and again.
    """
    assert isinstance(task.space, DnaSpace)
    space, outlook = task.space, this.outlook
    decided_by = _score_inputs(context, task)
    scores = _scores(context, task, space, decided_by)

    def compute(folder: Path) -> Searched:
        from pipeline.methods.dna.selecting import select_architectures

        count = context.recipe.search.evaluations + len(this.rejected)
        found = select_architectures(
            space, scores.blocks, outlook.latency_models, outlook.constraints.limits_ns, count=count
        )
        if not found.selected:
            raise BudgetError("no network of the space keeps the budgets", fix="loosen them")
        candidates = [Candidate(each.architecture, Score(-each.loss)) for each in found.selected]
        learning = Learning(context, outlook, folder)
        order = shortlist(context, learning, candidates, this)
        return Searched(
            tuple(described(each, None, learning.outlook) for each in candidates),
            tuple(learning.measured.values()),
            tuple(order),
            evaluated_by="loss",
        )

    inputs = {**round_inputs(context, this), "scores": decided_by}
    value = context.work.stage("search", inputs, Searched, compute)
    context.reporter.note(
        f"search       {len(value.candidates)} networks selected, smallest loss "
        f"{-(value.candidates[0].score or 0.0):.4f}; {len(value.order)} measured within budget"
    )
    return value


def _scores(context: Context, task: Task, space: DnaSpace, inputs: dict[str, object]) -> Scores:
    settings = context.recipe.dna

    def compute(folder: Path) -> Scores:
        from pipeline.methods.dna.run import score_blocks

        with context.reporter.task("score the blocks", "blocks") as advance:
            return Scores(
                score_blocks(
                    space,
                    _cut_teacher(context, task.data, task.teacher),
                    task.data.dataset,
                    settings.training,
                    folder=folder,
                    seed=context.recipe.seed,
                    workers=settings.workers,
                    on_progress=advance,
                )
            )

    asked = context.recipe.model_dump(mode="json")
    value = context.work.stage("scores", inputs, Scores, compute, asked=asked)
    paths = [sum(len(cell.values) for cell in block.cells) for block in value.blocks]
    context.reporter.note(f"scores      {' + '.join(map(str, paths))} paths of {len(paths)} blocks evaluated")
    return value


def _score_inputs(context: Context, task: Task) -> dict[str, object]:
    return {
        "space": task.space.description,
        "teacher": _cut(context, task.data, task.teacher).digest,
        "data": task.data.summary.digest,
        "settings": context.recipe.dna.training.model_dump(mode="json"),
        "seed": context.recipe.seed,
        "versions": training_versions(),
    }


def _cut(context: Context, data: Data, teacher: FrozenTeacher) -> Cut:
    def compute(folder: Path) -> Cut:
        cut = _cut_teacher(context, data, teacher)
        return Cut(cut.shapes, cut.digest)

    inputs = {"teacher": teacher.summary.digest, "data": data.summary.digest, "cuts": context.recipe.dna.cuts}
    return context.work.stage("cut", inputs, Cut, compute)


def _cut_teacher(context: Context, data: Data, teacher: FrozenTeacher) -> CutTeacher:
    from pipeline.methods.dna.cutting import cut_teacher

    return cut_teacher(teacher.teacher.module, data.summary.input_shape, context.recipe.dna.cuts)
