"""The stage ``structures`` on teachers that come in by different ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipeline.recipe.loading import parse_recipe
from pipeline.run.preparation import LearningTask, prepare_task
from pipeline.spaces.teacher.config import Structure, TeacherSpaceConfig
from pipeline.stages.inputs.structures import find_teacher_structures
from pipeline.teachers.convnet import ConvNet
from pipeline.work.stage import StageFolder
from tests.pipeline.run.made_up_run import made_up_context

DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "method": "subgraph",
    "allow_chance": True,
    "data": {"kind": "digits", "train_limit": 100},
    "target": [{"name": "host/onnxruntime:fp32@1", "budget": "0.5x teacher"}],
    "subgraph": {"most_blocks": 12},
}


def network() -> ConvNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvNet(1, 10, width=4, depth=1).eval()


def prepared(folder: Path, teacher: dict[str, Any]) -> LearningTask:
    with made_up_context(folder, parse_recipe({**DOCUMENT, "teacher": [teacher]}, folder)) as context:
        task = prepare_task(context)
        student = task.plan.open(StageFolder(context.work.find(task.data.arrays).parent))
        student.build(student.reference())
        return task


def as_factory(folder: Path) -> dict[str, Any]:
    save_file(network().state_dict(), folder / "teacher.safetensors")
    arguments = {"channels": 1, "classes": 10, "width": 4, "depth": 1}
    return {
        "kind": "factory",
        "factory": "pipeline.teachers.convnet:ConvNet",
        "arguments": arguments,
        "weights": str(folder / "teacher.safetensors"),
    }


def as_file(folder: Path) -> dict[str, Any]:
    path = folder / "teacher.pt2"
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    torch.export.save(torch.export.export(network(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=shapes), path)
    return {"kind": "pt2", "path": str(path)}


def test_a_teacher_from_a_factory_and_the_same_as_a_file_have_the_same_structures(tmp_path: Path) -> None:
    theirs, ours = (
        prepared(tmp_path / name, way(tmp_path)).plan.config
        for name, way in {"factory": as_factory, "file": as_file}.items()
    )
    assert isinstance(theirs, TeacherSpaceConfig)
    assert isinstance(ours, TeacherSpaceConfig)
    assert ours.structures == theirs.structures
    assert ours.widths == theirs.widths
    assert [each.name for each in ours.units] == [each.name for each in theirs.units]
    assert list(ours.sizes.values()) == list(theirs.sizes.values())


def test_what_can_be_removed_is_told_by_kind_and_nothing_of_kinds_that_are_not_there() -> None:
    nothing: Any = None
    structures = (Structure("layer", "groups", 4, ("norm",)), Structure("other", "groups", 8, ("norm",)))
    (line,) = find_teacher_structures.tell(nothing, TeacherSpaceConfig(structures, {}, {}, (), {}))
    assert line.endswith("can be removed: 12 whole groups of grouped layers, 0 whole blocks")
