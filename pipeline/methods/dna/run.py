"""DNA from a cut teacher to selected architectures; what is finished stays in a work folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

from devices.words import count_of
from pipeline.data.base import Dataset
from pipeline.errors import RecipeError, TeacherError
from pipeline.methods.dna.block import BlockScoresInput, score_block
from pipeline.methods.dna.cutting import CutTeacher
from pipeline.methods.dna.result import BlockScores, DnaResult
from pipeline.methods.dna.selecting import select_architectures
from pipeline.methods.dna.settings import DnaSettings
from pipeline.methods.dna.workers import run_tasks
from pipeline.search.base import AdditiveLatencyModel
from pipeline.spaces.base import Block
from pipeline.spaces.dna.space import DnaSpace
from pipeline.work.folder import WorkFolder

OnProgress = Callable[[int, int], None]
"""Called with how many blocks are evaluated, and how many there are."""


def run_dna(
    space: DnaSpace,
    teacher: CutTeacher,
    dataset: Dataset,
    settings: DnaSettings,
    *,
    models: Mapping[str, AdditiveLatencyModel[Block]],
    limits: Mapping[str, float],
    work: WorkFolder,
    seed: int,
    count: int = 1,
    workers: int = 1,
    on_progress: OnProgress | None = None,
) -> DnaResult:
    """Train and score the blocks of the space by the teacher's, and select the best architectures.

    Nothing but the train split is looked at, and of that the images only. A run that was killed goes on from
    the last finished epoch, and gives the same result; so does any number of workers.

    Args:
        space: of the student; its blocks have the strides of the teacher's.
        teacher: from ``cut_teacher``.
        dataset: a slice of its train split is held out for the scores.
        settings: of training and score.
        models: latency model per target, such as ``TableLatencyModel``.
        limits: largest latency in ns by target, for the upper end of the estimate; ``macs`` and
            ``parameters`` can be limited too. At least one.
        work: where finished blocks and checkpoints are kept.
        seed: of weights, order, paths, and of the slice that is held out.
        count: architectures wanted, the best first, for whoever goes on when the best fails its measurement.
        workers: processes that work on blocks side by side; one works in this process.
        on_progress: tells how far it is.

    Raises:
        TeacherError: the teacher has another number of blocks than the space, or blocks of other strides, or
            features that do not vary.
        BudgetError: no architecture of the space runs on every target.
        RecipeError: a limit has no latency model or no meaning, or the settings do not fit together.
        DnaError: training diverged, or a worker was lost again and again.
        WorkFolderError: the folder cannot be written, or a checkpoint is damaged.
    """
    scores = score_blocks(
        space,
        teacher,
        dataset,
        settings,
        work=work,
        seed=seed,
        workers=workers,
        on_progress=on_progress,
    )
    found = select_architectures(space, scores, models, limits, count=count)
    return DnaResult(scores, found.selected, found.nearest, found.exact)


def score_blocks(
    space: DnaSpace,
    teacher: CutTeacher,
    dataset: Dataset,
    settings: DnaSettings,
    *,
    work: WorkFolder,
    seed: int,
    workers: int = 1,
    on_progress: OnProgress | None = None,
) -> tuple[BlockScores, ...]:
    """The scores of all paths of all blocks; arguments and errors as of ``run_dna``."""
    check_alignment(space, teacher)
    if settings.inputs == "student" and workers > 1:
        raise RecipeError(
            "blocks that are given the student's features cannot be trained side by side",
            why="each needs the best path of the blocks before it",
            fix="use one worker",
        )
    blocks = len(teacher.shapes)
    tasks = [
        BlockScoresInput.of(space, teacher, dataset, settings, seed=seed, block=block)
        for block in range(blocks)
    ]
    # Sums depend on the number of threads, and so would the scores on the number of workers.
    run = partial(_scores, work=work, threads=torch.get_num_threads())
    scores: list[BlockScores] = []
    for evaluated in run_tasks(run, tasks, workers):
        scores.append(evaluated)
        if on_progress is not None:
            on_progress(len(scores), blocks)
    return tuple(scores)


def _scores(given: BlockScoresInput, work: WorkFolder, threads: int) -> BlockScores:
    torch.set_num_threads(threads)
    return work.run(score_block, given, work)


def check_alignment(space: DnaSpace, teacher: CutTeacher) -> None:
    """Check that every block of the student gives features of the size that the teacher's has there.

    Raises:
        TeacherError: one does not, or the teacher has another number of blocks.
    """
    blocks = len(space.config.blocks)
    if blocks != len(teacher.shapes):
        raise TeacherError(
            f"the teacher is cut into {count_of(len(teacher.shapes), 'block')}, the space has {blocks}",
            why="each block of the student learns from one of the teacher",
            fix="give the space as many blocks, or cut the teacher at other places",
        )
    for block, (_, *size) in enumerate(teacher.shapes, start=1):
        own = space.size_into(block)
        if tuple(size) != own:
            raise TeacherError(
                f"at the end of block {block} the teacher's features are {size[0]}x{size[1]}, the student's "
                f"{own[0]}x{own[1]}",
                why="a block of the student reproduces features of the same size, so their strides are equal",
                fix="set the strides of the space as DnaSpaceConfig.for_teacher does",
            )
