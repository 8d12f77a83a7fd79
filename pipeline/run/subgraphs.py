"""What an estimate needs to know of a teacher from which a subgraph is to be cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.run.context import Context
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.inputs.structures import StructuresInput, find_teacher_structures
from pipeline.stages.inputs.teacher import TeacherInput, TeacherSource, prepare_teacher
from pipeline.work.stage import StageFolder

if TYPE_CHECKING:
    from torch import nn


def space_of_teacher(context: Context, data: DataSummary) -> SpacePlan | None:
    """The space of the teacher's subgraphs, if an earlier run has found it."""
    recipe = context.recipe
    sources = tuple(map(TeacherSource.of, recipe.teacher))
    teacher = context.work.finished(prepare_teacher, TeacherInput(sources, recipe.seed, data))
    if teacher is None:
        return None
    given = StructuresInput(data.input_shape, recipe.subgraph.most_blocks, teacher)
    config = context.work.finished(find_teacher_structures, given)
    outputs = teacher.outputs or len(data.classes)
    return None if config is None else SpacePlan(config, data.input_shape, outputs, teacher)


def teacher_as_layers(context: Context, data: DataSummary) -> nn.Module:
    """The network that subgraphs are cut from, before it is trained: as fast, as large.

    Raises:
        TeacherError: it cannot be built, or cannot be turned into layers.
    """
    import torch

    from pipeline.teachers.loading import untrained
    from pipeline.teachers.rebuilding import rebuild_layers

    dataset = open_data(data, StageFolder(context.work.find(data.arrays).parent))
    network = untrained(context.recipe.teacher[0], dataset, context.recipe.seed)
    rebuild_layers(network, torch.zeros(2, *data.input_shape))
    return network.requires_grad_(True)
