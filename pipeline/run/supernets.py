"""How long the supernets of method ``dna`` may take: a few training steps of each block are timed."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from devices.words import count_of
from pipeline.run.context import Context
from pipeline.run.durations import Duration
from pipeline.spaces.dna.space import DnaSpace
from pipeline.stages.inputs.cut import CutInput, open_cut_teacher
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.teacher import TeacherInput, TeacherSource, prepare_teacher
from pipeline.work.stage import StageFolder

if TYPE_CHECKING:
    from pipeline.methods.dna.block import BlockScoresInput
    from pipeline.methods.dna.cutting import CutTeacher
    from pipeline.methods.dna.supernet import Supernet

_TIMED_STEPS = 2
FORWARD_SHARE = 1 / 3
"""Of a training step; the way back takes twice as long."""


def cut_teacher_of(context: Context, data: DataSummary) -> CutTeacher:
    """The teacher with its cuts, if an earlier run trained it; else before it is trained: as fast, as large.

    Raises:
        TeacherError: it cannot be built, or cannot be cut into blocks.
    """
    from pipeline.methods.dna.cutting import cut_teacher
    from pipeline.teachers.loading import untrained
    from pipeline.teachers.teacher import Member, Teacher

    recipe, folder = context.recipe, StageFolder(context.work.find(data.arrays).parent)
    sources = tuple(map(TeacherSource.of, recipe.teacher))
    summary = context.work.finished(prepare_teacher, TeacherInput(sources, recipe.seed, data))
    if summary is not None:
        return open_cut_teacher(CutInput(data.input_shape, recipe.dna.cuts, summary), folder)
    dataset = open_data(data, folder)
    each_member = [config for config in recipe.teacher for _ in range(config.members)]
    members = [Member(each.name, untrained(each, dataset, recipe.seed), "") for each in each_member]
    return cut_teacher(Teacher(members).module, data.input_shape, recipe.dna.cuts)


def scoring(
    context: Context, data: DataSummary, space: DnaSpace, teacher: CutTeacher
) -> tuple[str, Duration]:
    """What there is to train and to evaluate, in words, and how long that may take, block after block.

    Raises:
        TeacherError: the teacher's blocks do not fit the space's.
    """
    from pipeline.methods.dna.block import BlockScoresInput, supernets
    from pipeline.methods.dna.run import check_alignment

    check_alignment(space, teacher)
    settings, seed = context.recipe.dna.training, context.recipe.seed
    dataset = open_data(data, StageFolder(context.work.find(data.arrays).parent))
    seconds, paths = 0.0, 0
    for block in range(len(teacher.shapes)):
        given = BlockScoresInput.of(space, teacher, dataset, settings, seed=seed, block=block)
        cells = supernets(given.training)
        paths += sum(math.prod(cell.choices) for cell in cells)
        seconds += _block(given, cells)
    epochs = count_of(settings.epochs, "epoch")
    work = f"{epochs} of each of {len(teacher.shapes)} blocks, then {paths} paths to evaluate"
    return work, Duration(seconds, f"{_TIMED_STEPS} training steps of each block timed now")


def _block(given: BlockScoresInput, cells: list[Supernet]) -> float:
    """Seconds of one block: its epochs, and the evaluation of its paths."""
    step_s = _training_step(given, cells)
    settings, (train, held) = given.settings, given.training.slices(given.settings.score_images)
    steps = settings.epochs * math.ceil(len(train) / settings.batch_size)
    images = len(held) + min(len(train), settings.calibration_images)
    path_s = step_s * FORWARD_SHARE / len(cells) * images / min(settings.batch_size, len(train))
    return steps * step_s + sum(path_s * _layers(cell) / len(cell.choices) for cell in cells)


def _layers(cell: Supernet) -> int:
    """How many layers an evaluation computes: paths with a common beginning share it."""
    return sum(math.prod(cell.choices[: depth + 1]) for depth in range(len(cell.choices)))


def _training_step(given: BlockScoresInput, cells: list[Supernet]) -> float:
    """Seconds of one step of all cells of a block, on the first images; the weights are lost."""
    from pipeline.methods.dna.block import training_of
    from pipeline.methods.dna.features import BlockFeatures

    training, size = given.training, given.settings.batch_size
    train, _ = training.slices()
    timed = training_of(training, epochs=1)
    features = BlockFeatures(training.teacher, training.block)
    took = 0.0
    for steps in (1, _TIMED_STEPS):
        images = train.first(steps * size)
        began = time.perf_counter()
        timed.run(cells, features, images, training.dataset.preprocessing)
        took = (time.perf_counter() - began) / math.ceil(len(images) / size)
    return took
