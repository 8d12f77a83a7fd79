from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.errors import BudgetError
from pipeline.methods.subgraph.costs import Costs
from pipeline.methods.subgraph.selection import Selection, select
from pipeline.methods.subgraph.settings import SubgraphSettings
from pipeline.methods.subgraph.structures import find_structures
from pipeline.methods.subgraph.units import OpenTeacherSpace, describe_teacher
from pipeline.spaces.base import Architecture
from tests.killed_process import die, run_until_killed
from tests.pipeline.methods.subgraph.networks import SHAPE, images, resnet

SETTINGS = SubgraphSettings(epochs=4, batch_size=16)


class Says:
    """What a network says, as soft targets."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval()

    def __call__(self, batch: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            return self._network(batch)[None]

    def network(self) -> nn.Module:
        return self._network


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """What is selected in another process is compared to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _itself(network: nn.Module) -> nn.Module:
    """In place of a closure, which does not travel to another process."""
    return network


@pytest.fixture(scope="module", name="space")
def _space() -> OpenTeacherSpace:
    network = resnet()
    config = describe_teacher(network, SHAPE, find_structures(network, SHAPE), most_blocks=100)
    return OpenTeacherSpace(config, SHAPE, 5, partial(_itself, network))


def dataset(count: int = 97) -> Dataset:
    """Noise: the teacher alone says what is what."""
    generator = np.random.default_rng(0)

    def split(size: int) -> Split:
        pixels = generator.integers(0, 256, (size, *SHAPE[1:], SHAPE[0]), dtype=np.uint8)
        return Split(pixels, generator.integers(0, 5, size))

    names = tuple("abcde")
    preprocessing = Preprocessing((0.5,) * 3, (0.3,) * 3)
    return Dataset("noise", split(count), split(8), split(8), names, preprocessing, digest="")


def costs(space: OpenTeacherSpace, share: float) -> Costs:
    def macs(architecture: Architecture) -> float:
        return sum(space.cost(block).macs for block in space.blocks(architecture))

    limit = share * macs(space.reference())
    return Costs(space, lambda each: {"board": macs(each) / limit}, lambda block: space.cost(block).macs)


def selected(space: OpenTeacherSpace, share: float, **given) -> Selection:
    arguments = {
        "settings": SETTINGS,
        "dataset": dataset(),
        "seed": 0,
        "teacher": Says(space.network),
    } | given
    return select(
        copy.deepcopy(space.network),
        SHAPE,
        space.config.structures,
        costs=costs(space, share),
        **arguments,
    )


@pytest.mark.parametrize("share", [0.7, 0.4])
def test_a_subgraph_keeps_the_budget_and_is_smaller(space: OpenTeacherSpace, share: float) -> None:
    found = selected(space, share)
    architecture = space.architecture(found.counts)
    assert costs(space, share).excess(found.counts) <= 1
    shapes = {name: value.shape for name, value in space.build(architecture).state_dict().items()}
    assert {name: value.shape for name, value in found.network.state_dict().items()} == shapes
    assert torch.isfinite(found.network(images())).all()


def test_in_bf16_the_network_and_its_teacher_compute_and_what_is_kept_is_float32(
    space: OpenTeacherSpace,
) -> None:
    types = set()

    class Watched(Says):
        def __call__(self, batch: Tensor, index: Tensor) -> Tensor:
            said = super().__call__(batch, index)
            types.add(said.dtype)
            return said

    settings = SETTINGS.model_copy(update={"precision": "bf16"})
    found = selected(space, 0.5, settings=settings, teacher=Watched(space.network))
    assert types == {torch.bfloat16}
    assert costs(space, 0.5).excess(found.counts) <= 1
    assert {value.dtype for value in found.network.parameters()} == {torch.float32}


def test_gates_that_fall_are_told_and_the_weight_of_the_penalty_is_found(space: OpenTeacherSpace) -> None:
    history = selected(space, 0.5).history
    assert history[0].excess == pytest.approx(2.0)
    assert history[-1].excess <= 1
    assert len({record.penalty for record in history}) > 1


def test_a_budget_that_the_teacher_keeps_leaves_all_of_it(space: OpenTeacherSpace) -> None:
    found = selected(space, 1.0)
    assert found.counts == {each.name: each.count for each in space.config.structures}


def _die_past_half(done: int, total: int) -> None:
    if done > total // 2:
        die()


def test_equal_seeds_select_equally_and_a_killed_selection_goes_on(
    space: OpenTeacherSpace, tmp_path: Path
) -> None:
    whole = selected(space, 0.5)
    checkpoint = tmp_path / "checkpoint.pt"

    run_until_killed(partial(selected, space, 0.5, checkpoint=checkpoint, on_step=_die_past_half))
    steps, told = [], []
    resumed = selected(
        space,
        0.5,
        checkpoint=checkpoint,
        on_step=lambda done, total: steps.append(done),
        tell=told.append,
    )
    assert steps[0] > 1
    assert "the selection of a subgraph" in told[0]
    assert resumed.kept == whole.kept
    assert resumed.history == whole.history
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value)


def test_a_budget_below_the_smallest_subgraph_is_refused(space: OpenTeacherSpace) -> None:
    with pytest.raises(BudgetError, match="no subgraph of the teacher keeps the budgets"):
        selected(space, 0.01)


def test_what_too_few_steps_leave_above_the_budget_is_cut_and_told(space: OpenTeacherSpace) -> None:
    settings = SubgraphSettings(epochs=1, batch_size=64, gate_learning_rate=1e-6)
    found = selected(space, 0.4, settings=settings)
    assert costs(space, 0.4).excess(found.counts) <= 1
    assert found.snapped > 0


def test_a_last_batch_of_one_is_left_out(space: OpenTeacherSpace) -> None:
    settings = SubgraphSettings(epochs=1, batch_size=16)
    steps = []
    selected(
        space, 1.0, settings=settings, dataset=dataset(33), on_step=lambda done, total: steps.append(total)
    )
    assert steps == [2, 2]


def test_the_labels_take_part_only_when_they_are_asked_for(space: OpenTeacherSpace) -> None:
    given = dataset()
    relabelled = replace(given, train=replace(given.train, labels=(given.train.labels + 1) % 5))
    assert selected(space, 0.5).kept == selected(space, 0.5, dataset=relabelled).kept
    settings = SETTINGS.model_copy(update={"data_term": "labels"})
    ours = selected(space, 0.5, settings=settings).network.state_dict()
    theirs = selected(space, 0.5, settings=settings, dataset=relabelled).network.state_dict()
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours if name in theirs)


def test_members_of_an_ensemble_that_agree_teach_as_one(space: OpenTeacherSpace) -> None:
    class Both(Says):
        def __call__(self, batch: Tensor, index: Tensor) -> Tensor:
            return super().__call__(batch, index).expand(2, -1, -1)

    assert selected(space, 0.5, teacher=Both(space.network)).kept == selected(space, 0.5).kept


def test_a_selection_with_dropout_goes_on_as_one_that_was_not_stopped(tmp_path: Path) -> None:
    network = nn.Sequential(resnet(), nn.Dropout(0.2)).eval()
    config = describe_teacher(network, SHAPE, find_structures(network, SHAPE), most_blocks=100)
    space = OpenTeacherSpace(config, SHAPE, 5, partial(_itself, network))
    whole = selected(space, 0.5)

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        selected(space, 0.5, checkpoint=checkpoint, on_step=stop)
    resumed = selected(space, 0.5, checkpoint=checkpoint)
    assert (resumed.kept, resumed.history) == (whole.kept, whole.history)
    torch.testing.assert_close(resumed.network.state_dict(), whole.network.state_dict(), rtol=0, atol=0)
