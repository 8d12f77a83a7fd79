import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.data.base import Split
from pipeline.errors import RecipeError, TeacherError
from pipeline.methods.dna.cutting import cut_teacher
from pipeline.methods.dna.errors import DnaError
from pipeline.methods.dna.run import run_dna, score_blocks
from pipeline.methods.dna.workers import run_tasks
from pipeline.spaces.cost import network_cost
from pipeline.spaces.dna.config import DnaSpaceConfig
from pipeline.spaces.dna.space import DnaSpace
from pipeline.teachers.exported import load_exported
from pipeline.work.folder import WorkFolder
from tests.pipeline.methods.dna.dna_parts import (
    SETTINGS,
    SHAPE,
    dataset,
    network,
    space,
    teacher,
)
from tests.pipeline.methods.dna.lost_tasks import double, fail_always, fail_once, wait_or_fail
from tests.places import ROOT

DATA, SPACE = dataset(), space()
LONG = SETTINGS.model_copy(update={"epochs": 6})


def evaluated(folder, **changes):
    arguments = {"space": SPACE, "teacher": teacher(), "dataset": DATA, "settings": SETTINGS, "seed": 3}
    return score_blocks(work=WorkFolder(folder), **(arguments | changes))


@pytest.fixture(scope="module", name="known")
def _known(tmp_path_factory):
    """Folder and scores of a run."""
    folder = tmp_path_factory.mktemp("known")
    return folder, evaluated(folder)


def test_run_selects_the_best_evaluated_architectures_within_the_limits(known):
    folder, scores = known
    cost = network_cost(SPACE.blocks(SPACE.reference()))
    limits = {"macs": 0.9 * cost.macs, "parameters": 0.9 * cost.parameters}
    done = []
    result = run_dna(
        SPACE,
        teacher(),
        DATA,
        SETTINGS,
        models={},
        limits=limits,
        work=WorkFolder(folder),
        seed=3,
        count=3,
        on_progress=lambda *numbers: done.append(numbers),
    )
    assert result.scores == scores
    assert result.exact
    assert len(result.selected) == 3
    for found in result.selected:
        cost = network_cost(SPACE.blocks(found.architecture))
        assert cost.macs <= limits["macs"]
        assert SPACE.build(found.architecture).eval()(torch.randn(1, *SHAPE)).shape == (1, 2)
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_every_path_of_every_cell_of_every_block_is_evaluated(known):
    _, scores = known
    assert [[len(cell.values) for cell in block.cells] for block in scores] == [[2, 4]] * 3
    assert all(np.isfinite(cell.values).all() for block in scores for cell in block.cells)
    assert all(block.sigma > 0 and len(block.training_losses) == SETTINGS.epochs for block in scores)


def test_labels_validation_and_test_split_have_no_part_in_the_scores(known, tmp_path):
    _, scores = known
    other = Split(DATA.test.images[::-1].copy(), DATA.test.labels)
    assert evaluated(tmp_path, dataset=replace(DATA, validation=other, test=other)) == scores


def test_finished_blocks_are_not_trained_again(known):
    folder, scores = known
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert evaluated(folder) == scores
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"teacher": cut_teacher(network(1), SHAPE)},
        {"settings": SETTINGS.model_copy(update={"measure": "mse"})},
        {"settings": SETTINGS.model_copy(update={"recalibrate": False})},
    ],
)
def test_other_inputs_give_other_scores_in_the_same_folder(known, changes):
    folder, scores = known
    assert evaluated(folder, **changes) != scores


@pytest.mark.parametrize(("inputs", "again"), [("teacher", 1), ("student", 2)])
def test_a_changed_block_is_trained_again_and_those_that_its_features_enter(tmp_path, inputs, again):
    settings = SETTINGS.model_copy(update={"inputs": inputs, "epochs": 1})
    evaluated(tmp_path, settings=settings)
    first, second, third = SPACE.config.blocks
    changed = (first, second.model_copy(update={"squeeze_excite": 0.5}), third)
    work = WorkFolder(tmp_path)
    other = DnaSpace(SPACE.config.model_copy(update={"blocks": changed}), SHAPE, 2)
    score_blocks(other, teacher(), DATA, settings, work=work, seed=3)
    trained = [each for each in work.records if each.name == "block-training" and not each.cached]
    assert len(trained) == again


def test_another_head_of_the_space_changes_nothing_of_its_blocks(known):
    folder, scores = known
    other = DnaSpace(SPACE.config.model_copy(update={"head_width": 24}), SHAPE, 2)
    work = WorkFolder(folder)
    assert score_blocks(other, teacher(), DATA, SETTINGS, work=work, seed=3) == scores
    assert all(record.cached for record in work.records)


def test_a_block_that_is_evaluated_otherwise_is_not_trained_again(known):
    folder, scores = known
    work = WorkFolder(folder)
    settings = SETTINGS.model_copy(update={"score_images": 10})
    assert score_blocks(SPACE, teacher(), DATA, settings, work=work, seed=3) != scores
    assert {record.cached for record in work.records if record.name == "block-training"} == {True}


def test_progressive_variant_gives_a_block_the_features_of_the_students_best_paths(known, tmp_path):
    _, scores = known
    settings = SETTINGS.model_copy(update={"inputs": "student"})
    progressive = evaluated(tmp_path, settings=settings)
    assert progressive[0] == scores[0]
    assert progressive[1].cells != scores[1].cells
    assert progressive[1].sigma == scores[1].sigma
    again = tmp_path / "again"
    assert evaluated(again, settings=settings) == progressive


def test_progressive_variant_cannot_run_side_by_side(tmp_path):
    with pytest.raises(RecipeError, match="side by side"):
        evaluated(tmp_path, settings=SETTINGS.model_copy(update={"inputs": "student"}), workers=2)


@pytest.mark.slow
def test_blocks_side_by_side_are_evaluated_as_one_after_the_other(known, tmp_path):
    _, scores = known
    assert evaluated(tmp_path, workers=2) == scores


@pytest.mark.slow
def test_killed_run_goes_on_from_its_checkpoint_and_ends_like_one_that_was_not(tmp_path):
    command = [sys.executable, "-m", "tests.pipeline.methods.dna.dna_parts", str(tmp_path / "killed")]
    with subprocess.Popen(command, cwd=ROOT) as run:
        deadline = time.monotonic() + 60
        while run.poll() is None and time.monotonic() < deadline:
            if list((tmp_path / "killed").rglob("checkpoint.safetensors")):
                run.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        assert run.wait() == -signal.SIGKILL
    assert len(list((tmp_path / "killed").rglob("result.json"))) < 6
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert evaluated(tmp_path / "killed", settings=LONG) == evaluated(tmp_path / "whole", settings=LONG)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_tasks_of_a_lost_process_are_done_again(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths[1:]:
        path.touch()
    assert list(run_tasks(fail_once, paths, 2)) == ["a", "b", "c"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fix"), [("SIGKILL", "score_images"), ("SIGSEGV", "same command again")])
def test_task_that_ends_every_process_is_told_with_the_signal(name, fix):
    with pytest.raises(DnaError, match=f"block 1 was ended by {name}") as caught:
        list(run_tasks(fail_always, [name], 2))
    assert fix in caught.value.fix


@pytest.mark.slow
@pytest.mark.parametrize("names", [("wait", "fail", "wait"), ("fail", "wait", "wait")])
def test_a_task_that_fails_ends_the_others_at_once(tmp_path, names):
    path = tmp_path / "waits"
    with pytest.raises(ValueError, match="no use in going on"):
        list(run_tasks(wait_or_fail, [(name, path) for name in names], 2))
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), 0)


def test_one_worker_is_this_process():
    assert list(run_tasks(double, [1, 2, 3], 1)) == [2, 4, 6]


@pytest.mark.slow
def test_exported_teacher_cannot_be_sent_to_other_processes(tmp_path):
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(network().eval(), (torch.randn(2, *SHAPE),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "t.pt2")
    cut = cut_teacher(load_exported(tmp_path / "t.pt2"), SHAPE)
    with pytest.raises(DnaError, match="cannot be sent") as caught:
        evaluated(tmp_path / "work", teacher=cut, workers=2)
    assert "one worker" in caught.value.fix


def test_space_with_other_strides_than_the_teacher_is_refused(tmp_path):
    blocks = tuple(block.model_copy(update={"stride": 1}) for block in SPACE.config.blocks)
    other = DnaSpace(SPACE.config.model_copy(update={"blocks": blocks}), SHAPE, 2)
    with pytest.raises(
        TeacherError, match="end of block 2 the teacher's features are 4x4, the student's 8x8"
    ):
        evaluated(tmp_path, space=other)


def test_space_with_another_number_of_blocks_is_refused(tmp_path):
    config = DnaSpaceConfig.for_teacher(teacher().shapes[:2], SHAPE)
    with pytest.raises(TeacherError, match="cut into 3 blocks, the space has 2"):
        evaluated(tmp_path, space=DnaSpace(config, SHAPE, 2))


def test_space_made_for_the_teacher_fits_it(tmp_path):
    config = DnaSpaceConfig.for_teacher(teacher().shapes, SHAPE)
    scores = evaluated(
        tmp_path, space=DnaSpace(config, SHAPE, 2), settings=SETTINGS.model_copy(update={"epochs": 1})
    )
    assert len(scores) == 3
