"""A network that rounds as int8 does while it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.data.tensors import to_tensor
from pipeline.distill.fake_quantisation import fake_quantised, fine_tune_in_int8
from pipeline.distill.settings import EpochRecord, TrainingSettings
from pipeline.distill.training import accuracy, fit
from pipeline.errors import VerificationError
from pipeline.teachers.convnet import ConvNet

SETTINGS = TrainingSettings(epochs=6, batch_size=16, learning_rate=0.05, patience=6)


def _split(count: int, seed: int) -> Split:
    """Four classes of 8x8 images: which quarter is bright."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 4
    images = generator.integers(0, 190, (count, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 60
    return Split(images, labels)


@pytest.fixture(name="dataset", scope="module")
def _dataset() -> Dataset:
    splits = [_split(256, 0), _split(96, 1), _split(96, 2)]
    return Dataset("quarters", *splits, ("a", "b", "c", "d"), Preprocessing((0.4,), (0.3,)), "digest")


class _Residual(nn.Module):
    """Works in place, and adds what two convolutions gave."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        start = torch.relu(self.first(images))
        out = self.norm(self.second(start))
        out += start
        return self.head(torch.relu_(out).mean((2, 3)))  # type: ignore[no-any-return]


def _rounded(values: Tensor, low: float, high: float) -> Tensor:
    """The definition: 256 steps from ``low`` to ``high``, of which one is 0."""
    scale = (high - low) / 255
    zero = round(-low / scale)
    return ((values / scale).round() + zero).clamp(0, 255).sub(zero).mul(scale)


def test_inputs_weights_and_logits_are_rounded_as_defined() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    inputs = torch.randn(50, 3)
    exact = layer(inputs).detach()
    scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
    weight = (layer.weight.detach() / scale).round() * scale
    given = _rounded(inputs, float(inputs.min()), float(inputs.max()))
    expected = nn.functional.linear(given, weight, layer.bias.detach())
    with fake_quantised(layer, inputs):
        found = layer(inputs).detach()
    torch.testing.assert_close(found, _rounded(expected, float(exact.min()), float(exact.max())))
    assert 0 < float((found - exact).abs().max()) < 0.1


def test_a_network_is_what_it_was_afterwards_and_near_it_meanwhile() -> None:
    torch.manual_seed(0)
    network, images = _Residual().eval(), torch.randn(80, 1, 8, 8)
    exact, names = network(images).detach(), list(network.state_dict())
    with fake_quantised(network, images):
        rounded = network(images).detach()
        # The inputs of two convolutions, of a sum, of a mean and of a layer, and the logits.
        assert len(network.get_buffer("int8_low")) == 7
    assert 0 < float((rounded - exact).abs().max()) < 0.05 * float(exact.abs().max())
    assert list(network.state_dict()) == names
    assert torch.equal(network(images), exact)


def test_a_folded_batch_norm_leaves_the_rounding_of_weights_as_it_is() -> None:
    torch.manual_seed(0)
    pair = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)).eval()
    norm = pair[1]
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.uniform_(norm.weight, 0.1, 5.0)
    norm.running_var = torch.rand(4) + 0.1
    folded = nn.utils.fusion.fuse_conv_bn_eval(pair[0], norm)
    images = torch.randn(20, 1, 8, 8)
    with fake_quantised(pair, images), fake_quantised(folded, images):
        torch.testing.assert_close(pair(images), folded(images), atol=1e-4, rtol=1e-4)


def test_ranges_follow_the_batches_of_a_training_and_hold_otherwise() -> None:
    torch.manual_seed(0)
    network, images = _Residual(), torch.randn(32, 1, 8, 8)
    with fake_quantised(network, images):
        before = network.get_buffer("int8_high").clone()
        network.eval()(10 * images)
        assert torch.equal(network.get_buffer("int8_high"), before)
        network.train()(10 * images)
        after = network.get_buffer("int8_high")
        assert float(after[0]) == pytest.approx(float(before[0] + 0.01 * (10 * images.max() - before[0])))


def test_a_network_that_makes_other_calls_in_training_is_refused() -> None:
    class Jumping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            result: Tensor = self.layer(inputs)
            return result * torch.ones(2) if self.training else result

    network = Jumping()
    with fake_quantised(network, torch.randn(8, 4)), pytest.raises(VerificationError, match="fine-tuned"):
        network.train()(torch.randn(8, 4))


@pytest.fixture(name="fragile")
def _fragile(dataset: Dataset) -> nn.Module:
    """A trained network of which one channel of a layer is 1000 times as large as need be.

    In float nothing changes. In int8 the other channels share the few steps that are left.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 4)),
    )
    fit(network, dataset, SETTINGS, seed=0)
    first, second = network[0], network[2]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    with torch.no_grad():
        assert first.bias is not None
        first.weight[0] *= 1000
        first.bias[0] *= 1000
        second.weight[:, 0] /= 1000
    first.requires_grad_(False)
    second.requires_grad_(False)
    return network


def in_int8(network: nn.Module, dataset: Dataset) -> float:
    calibration = to_tensor(dataset.train.images[:64], dataset.preprocessing)
    with fake_quantised(network, calibration):
        return accuracy(network, dataset.validation, dataset.preprocessing)


def test_fine_tuning_gives_back_what_quantisation_lost_and_ends_at_its_goal(
    fragile: nn.Module, dataset: Dataset
) -> None:
    calibration = to_tensor(dataset.train.images[:64], dataset.preprocessing)
    before = accuracy(fragile, dataset.validation, dataset.preprocessing)
    quantised = in_int8(fragile, dataset)
    assert before > 0.9
    assert quantised < before - 0.2
    names = list(fragile.state_dict())
    goal = quantised + 0.04
    settings = TrainingSettings(epochs=20, batch_size=16, learning_rate=0.01, patience=20)
    result = fine_tune_in_int8(fragile, dataset, settings, seed=0, calibration=calibration, goal=goal)
    assert result.best_validation_accuracy >= goal
    assert len(result.history) < 20
    assert [each.validation_accuracy >= goal for each in result.history[:-1]].count(True) == 0
    assert list(fragile.state_dict()) == names


def test_a_killed_fine_tuning_goes_on_to_the_same_weights(dataset: Dataset, tmp_path: Path) -> None:
    def tuned(checkpoint: Path, *, stop: bool) -> nn.Module:
        torch.manual_seed(0)
        network = ConvNet(1, 4, width=4, depth=1)

        def on_epoch(done: int, total: int, record: EpochRecord) -> None:
            if stop and done == 2:
                raise KeyboardInterrupt

        fine_tune_in_int8(
            network,
            dataset,
            SETTINGS.model_copy(update={"epochs": 3}),
            seed=0,
            calibration=to_tensor(dataset.train.images[:64], dataset.preprocessing),
            goal=1.1,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
        return network

    whole = tuned(tmp_path / "whole.pt", stop=False)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "killed.pt", stop=True)
    resumed = tuned(tmp_path / "killed.pt", stop=False)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
