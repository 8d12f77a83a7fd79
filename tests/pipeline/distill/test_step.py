from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.distill.batches import Batch
from pipeline.distill.losses.settings import LabelsSettings
from pipeline.distill.objective import Objective
from pipeline.distill.step import TrainingStep

CPU = torch.device("cpu")


class Small(nn.Module):
    """Has the memory for a few images only."""

    def __init__(self, most: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.most = nn.Linear(8, 3), most

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("no memory")
        self.type = self.linear(images.flatten(1)).dtype
        return self.linear(images.flatten(1))  # type: ignore[no-any-return]


def batch(count: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        torch.randn(count, 2, 2, 2, generator=generator), torch.arange(count), torch.arange(count) % 3
    )


def after(model: Small, told: list[str], precision: str = "fp32", steps: int = 3) -> tuple[Tensor, float]:
    objective = Objective((LabelsSettings(),), None)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step = TrainingStep(model, objective, optimizer, device=CPU, precision=precision, tell=told.append)  # type: ignore[arg-type]
    for _ in range(steps):
        loss = step(batch(), 0.1)
    return model.linear.weight.detach().clone(), loss


@pytest.mark.parametrize(("most", "lines", "parts"), [(6, 1, 2), (5, 2, 4), (3, 2, 4), (2, 3, 6)])
def test_a_batch_without_memory_is_computed_in_parts_to_the_same_step(
    most: int, lines: int, parts: int
) -> None:
    told: list[str] = []
    weights, loss = after(Small(most), told)
    expected, expected_loss = after(Small(12), [])
    assert torch.allclose(weights, expected, atol=1e-6)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    # Told once for every time that it was halved, and then kept.
    assert len(told) == lines
    assert told[-1].endswith(f"in {parts} parts")


def test_too_little_memory_for_two_images_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        after(Small(1), [])


def test_bf16_is_what_the_network_computes_in_and_its_weights_stay_float32() -> None:
    model = Small(12)
    weights, _ = after(model, [], "bf16")
    assert model.type == torch.bfloat16
    assert weights.dtype == torch.float32
    expected, _ = after(Small(12), [])
    assert not torch.equal(weights, expected)
    assert torch.allclose(weights, expected, atol=0.01)


def test_fp16_scales_its_gradients_to_about_the_same_step() -> None:
    weights, _ = after(Small(12), [], "fp16")
    assert torch.allclose(weights, after(Small(12), [])[0], atol=0.01)
