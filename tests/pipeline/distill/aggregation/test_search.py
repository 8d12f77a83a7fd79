from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.distill.aggregation.result import FoundMixture
from pipeline.distill.aggregation.search import search_mixtures
from pipeline.distill.aggregation.settings import MixtureSearchSettings
from pipeline.distill.divergence import TrainingDiverged
from pipeline.distill.settings import TrainingSettings
from pipeline.errors import DataError, TeacherError
from pipeline.teachers.convnet import ConvNet
from tests.killed_process import die, run_until_killed

SEARCH = MixtureSearchSettings(epochs=3, warmup_epochs=1, mixture_learning_rate=0.1)
TRAINING = TrainingSettings(batch_size=8, augment="crop")


def _dataset(count: int = 34) -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    split = Split(images, np.arange(count, dtype=np.int64) % 2)
    return Dataset("noise", split, split, split, ("a", "b"), Preprocessing((0.5,), (0.3,)), "digest")


def _student() -> nn.Module:
    torch.manual_seed(1)
    return ConvNet(1, 2, width=3, depth=1)


def _teacher(depth: int = 2) -> nn.Module:
    torch.manual_seed(2)
    return ConvNet(1, 2, width=4, depth=depth).eval().requires_grad_(False)


def _search(settings: MixtureSearchSettings = SEARCH, **changes: Any) -> tuple[FoundMixture, ...]:
    given: dict[str, Any] = {"student": _student(), "teacher": _teacher(), "dataset": _dataset()}
    given |= changes
    return search_mixtures(
        given.pop("student"),
        given.pop("teacher"),
        given.pop("dataset"),
        settings,
        given.pop("training", TRAINING),
        seed=given.pop("seed", 0),
        **given,
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """What is found in another process is compared to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", name="found")
def _found() -> tuple[FoundMixture, ...]:
    return _search()


def test_every_group_gets_a_mixture_that_sums_to_one_and_was_the_average_at_first(
    found: tuple[FoundMixture, ...],
) -> None:
    assert [(each.size, len(each.shares)) for each in found] == [((8, 8), 3), ((4, 4), 2), ((2, 2), 2)]
    for each in found:
        assert sum(each.shares) == pytest.approx(1)
        assert len(each.history) == SEARCH.epochs
        assert each.history[0].shares == pytest.approx((1 / len(each.shares),) * len(each.shares))
        assert each.history[-1].shares == each.shares != each.history[0].shares
        assert min(each.slopes) > 0
        assert each.depth == pytest.approx(
            np.average(np.linspace(0, 1, len(each.shares)), weights=each.shares)
        )


def test_a_seed_repeats_a_search_and_another_does_not(found: tuple[FoundMixture, ...]) -> None:
    assert _search() == found != _search(seed=1)


def _die_after(last: int, number: int, total: int) -> None:
    if number == last:
        die()


@pytest.mark.parametrize("stop_after", [1, 3, 5, 9])
def test_a_killed_search_resumed_equals_one_that_was_not(
    found: tuple[FoundMixture, ...], tmp_path: Path, stop_after: int
) -> None:
    checkpoint, done = tmp_path / "checkpoint.pt", []

    run_until_killed(partial(_search, checkpoint=checkpoint, on_epoch=partial(_die_after, stop_after)))
    resumed = _search(checkpoint=checkpoint, on_epoch=lambda number, total: done.append((number, total)))
    assert done == [(number, 9) for number in range(stop_after + 1, 10)]
    assert resumed == found


def _student_with_dropout() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(ConvNet(1, 2, width=3, depth=1), nn.Dropout(0.2))


def test_a_search_with_dropout_goes_on_as_one_that_was_not_stopped(tmp_path: Path) -> None:
    whole = _search(student=_student_with_dropout())

    def stop(number: int, total: int) -> None:
        if number == 5:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        _search(student=_student_with_dropout(), checkpoint=checkpoint, on_epoch=stop)
    assert _search(student=_student_with_dropout(), checkpoint=checkpoint) == whole


def test_there_is_nothing_to_search_in_a_group_of_one_map() -> None:
    found = _search(teacher=_teacher(depth=1))
    assert [each.shares for each in found[1:]] == [(1.0,), (1.0,)]
    assert all(each.history == () and each.depth is None for each in found[1:])
    assert len(found[0].history) == SEARCH.epochs


def test_one_path_alone_moves_the_mixture_and_its_own_weights_only() -> None:
    one_group = MixtureSearchSettings(
        epochs=1, warmup_epochs=0, objective="teacher_to_student", weight_decay=0.0
    )
    for objective, still, moved, unused in (
        ("teacher_to_student", "stem.0.weight", "head.weight", 1),
        ("student_to_teacher", "head.weight", "stem.0.weight", 0),
    ):
        student, before = _student(), _student().state_dict()
        found = _search(one_group.model_copy(update={"objective": objective}), student=student)
        assert all(each.slopes[unused] == 0 < each.slopes[1 - unused] for each in found)
        assert torch.equal(student.state_dict()[still], before[still])
        assert not torch.equal(student.state_dict()[moved], before[moved])
        assert found[0].shares != pytest.approx((1 / 3,) * 3)


def test_with_the_loss_of_the_final_training_the_labels_do_not_move_the_mixture() -> None:
    found = _search(SEARCH.model_copy(update={"objective": "student_loss"}))
    assert all(each.slopes[0] == 0 < each.slopes[1] for each in found)


def test_the_balance_decides_how_much_the_paths_count() -> None:
    def last(balance: float) -> list[float]:
        return [each.shares[-1] for each in _search(SEARCH.model_copy(update={"balance": balance}))]

    alone = _search(SEARCH.model_copy(update={"objective": "student_to_teacher"}))
    assert last(1e-6)[0] == pytest.approx(alone[0].shares[-1], abs=1e-4)
    assert last(1.0)[0] != pytest.approx(alone[0].shares[-1], abs=1e-4)


def test_the_teacher_stays_in_eval_mode_and_as_it_is() -> None:
    teacher, before = _teacher(), _teacher().state_dict()
    _search(teacher=teacher)
    assert not teacher.training
    assert all(torch.equal(before[name], each) for name, each in teacher.state_dict().items())


def test_a_batch_of_one_is_left_out() -> None:
    counts: list[int] = []

    class Counting(ConvNet):
        def forward(self, images: Tensor) -> Tensor:
            counts.append(len(images))
            return super().forward(images)

    student = Counting(1, 2, width=3, depth=1)
    # Halves of 10 and 8 images.
    _search(student=student, dataset=_dataset(18), training=TrainingSettings(batch_size=3))
    assert set(counts) == {2, 3}


def test_too_few_images_for_two_halves_are_refused() -> None:
    images = np.zeros((2, 8, 8, 1), np.uint8)
    split = Split(images, np.zeros(2, np.int64))
    dataset = Dataset("one class", split, split, split, ("a",), Preprocessing((0.5,), (0.3,)), "digest")
    with pytest.raises(DataError, match="too few to search mixtures"):
        _search(dataset=dataset)


def test_networks_without_a_common_size_are_refused() -> None:
    with pytest.raises(TeacherError, match="no layer group"):
        _search(teacher=nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))


def test_a_search_that_diverges_says_so() -> None:
    with pytest.raises(TrainingDiverged, match="search for mixtures"):
        _search(SEARCH.model_copy(update={"learning_rate": 1e30}))
