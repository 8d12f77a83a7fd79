from __future__ import annotations

import pytest
import torch

from pipeline.distill.feature_maps import FeatureMap, MapPair
from pipeline.distill.losses.attention_transfer import AttentionTransferLoss
from pipeline.distill.losses.base import PairLoss, Step
from pipeline.distill.losses.blockwise import BlockwiseLoss
from pipeline.distill.losses.fitnet import FitNetLoss
from pipeline.distill.losses.similarity_preserving import SimilarityPreservingLoss

SMALL, LARGE = FeatureMap("a", 3, 4, 4), FeatureMap("b", 5, 4, 4)


def _connected(loss: PairLoss, student: FeatureMap = SMALL, teacher: FeatureMap = LARGE) -> PairLoss:
    loss.connect((student,), (teacher,))
    return loss


def _step(student: torch.Tensor, teacher: torch.Tensor) -> Step:
    nothing = torch.zeros(len(student), 2)
    labels = torch.zeros(len(student), dtype=torch.long)
    return Step(labels, nothing, nothing[None], {"a": student}, {"b": teacher})


def _maps(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(6, channels, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("loss", [AttentionTransferLoss(), SimilarityPreservingLoss()])
def test_equal_maps_have_no_loss_at_any_scale(loss: PairLoss) -> None:
    maps = _maps(3)
    same = FeatureMap("b", 3, 4, 4)
    assert float(_connected(loss, SMALL, same)(_step(maps, 7 * maps))) < 1e-12
    assert float(loss(_step(maps, _maps(3, seed=1)))) > 1e-3


def test_attention_is_the_same_in_every_order_of_channels() -> None:
    maps = _maps(3)
    loss = _connected(AttentionTransferLoss(), SMALL, FeatureMap("b", 3, 4, 4))
    assert float(loss(_step(maps, maps.flip(1)))) < 1e-12


def test_attention_transfer_equals_the_formula_written_out() -> None:
    student, teacher = _maps(3), _maps(5, seed=1)
    expected = torch.zeros(())
    for s, t in zip(student, teacher, strict=True):
        q_s, q_t = (m.square().sum(0).flatten() for m in (s, t))
        expected += (q_s / q_s.norm() - q_t / q_t.norm()).square().mean() / len(student)
    assert torch.allclose(_connected(AttentionTransferLoss())(_step(student, teacher)), expected)


def test_blockwise_is_the_squared_error_as_a_share_of_the_teachers_variance() -> None:
    student, teacher = _maps(3), 0.5 + 3 * _maps(5, seed=1)
    torch.manual_seed(0)
    loss = _connected(BlockwiseLoss())
    torch.manual_seed(0)
    squared = _connected(FitNetLoss())(_step(student, teacher))
    variance = (teacher - teacher.mean()).square().mean()
    assert torch.allclose(loss(_step(student, teacher)), squared / variance)


def test_blockwise_weighs_stages_alike_at_any_scale_of_their_features() -> None:
    maps = _maps(3)
    loss = _connected(BlockwiseLoss(), SMALL, FeatureMap("b", 3, 4, 4))
    (connector,) = (each for each in loss.modules() if isinstance(each, torch.nn.Conv2d))
    with torch.no_grad():
        connector.weight.zero_()
        connector.bias.zero_()
    centred = maps - maps.mean()
    assert float(loss(_step(maps, centred))) == pytest.approx(1.0)
    assert float(loss(_step(maps, 100 * centred))) == pytest.approx(1.0)
    assert torch.isfinite(loss(_step(maps, torch.zeros_like(maps))))


def test_similarity_is_between_images_and_not_between_channels() -> None:
    student, teacher = _maps(3), _maps(5, seed=1)
    g_s, g_t = (
        torch.nn.functional.normalize(m.flatten(1) @ m.flatten(1).T, dim=1) for m in (student, teacher)
    )
    expected = torch.linalg.matrix_norm(g_s - g_t).square() / 36
    assert torch.allclose(_connected(SimilarityPreservingLoss())(_step(student, teacher)), expected)
    order = torch.randperm(5)
    shuffled = _connected(SimilarityPreservingLoss())(_step(student, teacher[:, order]))
    assert torch.allclose(shuffled, expected)


def test_fitnet_learns_a_connector_that_makes_a_linear_teacher_exact() -> None:
    torch.manual_seed(0)
    loss = _connected(FitNetLoss())
    student = _maps(3)
    with torch.no_grad():
        teacher = torch.nn.Conv2d(3, 5, 1)(student)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    first = float(loss(_step(student, teacher)).detach())
    for _ in range(300):
        optimizer.zero_grad()
        value = loss(_step(student, teacher))
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 1e-3 * first


def test_the_loss_of_several_pairs_is_their_mean() -> None:
    loss = AttentionTransferLoss(("a", "c"), ("b", "d"))
    loss.connect(
        (SMALL, FeatureMap("c", 2, 2, 2)),
        (LARGE, FeatureMap("d", 2, 2, 2)),
    )
    assert [(pair.student.name, pair.teacher.name) for pair in loss.pairs] == [("a", "b"), ("c", "d")]
    one = _connected(AttentionTransferLoss())
    step = _step(_maps(3), _maps(5, seed=1))
    ours, theirs = torch.rand(6, 2, 2, 2), torch.rand(6, 2, 2, 2)
    both = Step(
        step.labels,
        step.student_logits,
        step.member_logits,
        {**step.student_features, "c": ours},
        {**step.teacher_features, "d": theirs},
    )
    second = AttentionTransferLoss()
    second.pairs = (MapPair(FeatureMap("c", 2, 2, 2), FeatureMap("d", 2, 2, 2)),)
    assert torch.allclose(loss(both), (one(step) + second(both)) / 2)
