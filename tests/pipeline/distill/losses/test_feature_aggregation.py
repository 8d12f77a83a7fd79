from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.distill.feature_groups import LayerGroup
from pipeline.distill.feature_maps import FeatureMap
from pipeline.distill.losses import mixtures
from pipeline.distill.losses.base import Step
from pipeline.distill.losses.feature_aggregation import FeatureAggregationLoss
from pipeline.distill.losses.fitnet import FitNetLoss
from pipeline.distill.losses.settings import FeatureAggregationSettings
from pipeline.errors import TeacherError

STUDENT = (FeatureMap("s1", 3, 4, 4, passage=True), FeatureMap("s2", 4, 2, 2, passage=True))
TEACHER = tuple(
    FeatureMap(f"t{size}{number}", 5, size, size, passage=True, mean=0.1 * number, std=1.0 + number)
    for size in (4, 2)
    for number in range(3)
)


def _step(seed: int = 0) -> Step:
    generator = torch.Generator().manual_seed(seed)

    def maps(layers: tuple[FeatureMap, ...]) -> dict[str, Tensor]:
        return {e.name: torch.randn(6, e.channels, *e.size, generator=generator) for e in layers}

    nothing = torch.zeros(6, 2)
    return Step(torch.zeros(6, dtype=torch.long), nothing, nothing[None], maps(STUDENT), maps(TEACHER))


def _connected(mixture: mixtures.Mixture) -> FeatureAggregationLoss:
    loss = FeatureAggregationLoss(mixture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss.connect(STUDENT, TEACHER)
    return loss


def _groups(*counts: int) -> list[LayerGroup]:
    return [LayerGroup(STUDENT[0], TEACHER[:1] * count) for count in counts]


def test_all_of_the_last_map_is_distillation_of_the_last_layers() -> None:
    step = _step()
    last = [each for each in TEACHER if each.name in ("t42", "t22")]
    standardised = {each.name: (step.teacher_features[each.name] - each.mean) / each.std for each in last}
    of_last_layers = FitNetLoss(("s1", "s2"), ("t42", "t22"))
    of_last_layers.connect(STUDENT, TEACHER)
    aggregation = _connected(mixtures.last)
    of_last_layers.load_state_dict(aggregation.state_dict())
    # FitNet's loss is the mean over the pairs, feature aggregation's the sum over the groups.
    expected = 2 * of_last_layers(
        Step(step.labels, step.student_logits, step.member_logits, step.student_features, standardised)
    )
    assert torch.allclose(aggregation(step), expected, rtol=1e-6)
    one_hot = _connected(mixtures.fixed(((0.0, 0.0, 1.0), (0.0, 0.0, 1.0))))
    assert torch.equal(one_hot(step), aggregation(step))


def test_the_loss_equals_the_formula_written_out() -> None:
    shares = ((0.2, 0.3, 0.5), (0.6, 0.0, 0.4))
    loss, step = _connected(mixtures.fixed(shares)), _step(1)
    expected = torch.zeros(())
    for group, weights in enumerate(shares):
        teacher = TEACHER[3 * group : 3 * group + 3]
        mixed = sum(
            weight * (step.teacher_features[each.name] - each.mean) / each.std
            for weight, each in zip(weights, teacher, strict=True)
        )
        ours = loss._connectors[group](step.student_features[STUDENT[group].name])
        expected = expected + (ours - mixed).square().sum() / ours.numel()
    assert torch.allclose(loss(step), expected, rtol=1e-5)
    assert loss.student_layers == ("s1", "s2")
    assert loss.teacher_layers == tuple(each.name for each in TEACHER)


def test_only_student_and_connectors_learn() -> None:
    loss, step = _connected(mixtures.average), _step(2)
    for each in step.student_features.values():
        each.requires_grad_()
    loss(step).backward()
    assert all(each.grad is not None for each in [*loss.parameters(), *step.student_features.values()])
    assert all(each.grad is None for each in step.teacher_features.values())


@given(counts=st.lists(st.integers(1, 12), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_the_shares_of_every_group_sum_to_one(counts: list[int], seed: int) -> None:
    groups = _groups(*counts)
    for mixture in (mixtures.last, mixtures.average, mixtures.random(seed)):
        shares = mixture(groups)
        assert [len(each) for each in shares] == counts
        assert all(sum(each) == pytest.approx(1) and min(each) >= 0 for each in shares)


def test_random_shares_follow_their_seed() -> None:
    groups = _groups(3, 4)
    assert mixtures.random(1)(groups) == mixtures.random(1)(groups) != mixtures.random(2)(groups)


def test_shares_of_other_groups_are_refused_with_the_maps_of_these() -> None:
    with pytest.raises(TeacherError, match="groups of 2 maps, but the teacher's have 3, 3") as caught:
        _connected(mixtures.fixed(((0.5, 0.5),)))
    assert "4x4: t40, t41, t42" in caught.value.why


def test_a_group_of_one_map_takes_all_of_it() -> None:
    shares = [mixture(_groups(1)) for mixture in (mixtures.last, mixtures.average, mixtures.random(3))]
    assert shares == [((1.0,),)] * 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mixture": "fixed"}, "give 'shares'"),
        ({"mixture": "last", "shares": [[1.0]]}, "only there"),
        ({"mixture": "fixed", "shares": [[0.5, 0.4]]}, "sum to 1"),
        ({"mixture": "fixed", "shares": [[1.5, -0.5]]}, "or equal to 0"),
        ({"mixture": "fixed", "shares": [[]]}, "sum to 1"),
        ({"search": {"epochs": 3, "warmup_epochs": 3}}, "below 'epochs'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FeatureAggregationSettings.model_validate(settings)


@pytest.mark.parametrize("mixture", ["last", "average", "random"])
def test_settings_make_the_loss_that_they_name(mixture: str) -> None:
    loss = FeatureAggregationSettings(mixture=mixture, mixture_seed=7).make()
    assert isinstance(loss, FeatureAggregationLoss)
    loss.connect(STUDENT, TEACHER)
    expected = {"last": mixtures.last, "average": mixtures.average, "random": mixtures.random(7)}[mixture]
    assert loss.shares == expected(loss.groups)


def test_what_a_search_found_takes_its_place() -> None:
    searched = FeatureAggregationSettings(weight=3.0)
    with pytest.raises(ValueError, match="not known yet"):
        searched.make()
    found = searched.found(((0.25, 0.25, 0.5), (1.0, 0.0, 0.0)))
    assert found.weight == 3.0
    loss = found.make()
    loss.connect(STUDENT, TEACHER)
    assert loss.shares == ((0.25, 0.25, 0.5), (1.0, 0.0, 0.0))
