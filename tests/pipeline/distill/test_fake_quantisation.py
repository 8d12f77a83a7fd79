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
from pipeline.distill.losses.settings import FitNetSettings, LabelsSettings
from pipeline.distill.settings import DistillationSettings, EpochRecord, TrainingSettings
from pipeline.distill.targets import LiveTargets
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


class _ByName(nn.Conv2d):
    """Hands what it computes with to the operator by name."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.conv2d(input=input, weight=self.weight, bias=self.bias)


def test_arguments_are_rounded_by_whatever_way_they_come() -> None:
    torch.manual_seed(0)
    plain, by_name, images = nn.Conv2d(1, 4, 3), _ByName(1, 4, 3), torch.randn(8, 1, 6, 6)
    by_name.load_state_dict(plain.state_dict())
    with fake_quantised(plain, images), fake_quantised(by_name, images):
        assert torch.equal(plain(images), by_name(images))


class _Joined(nn.Module):
    """Two views of the images, joined and attended to; how arguments are handed over is left open."""

    def __init__(self, *, by_name: bool) -> None:
        super().__init__()
        self._by_name = by_name

    def forward(self, images: Tensor) -> Tensor:
        mask = torch.full((6, 6), -torch.inf).triu(1)
        attend = nn.functional.scaled_dot_product_attention
        if self._by_name:
            joined = torch.cat(tensors=[torch.add(input=images, other=images), images], dim=2)
            return attend(query=joined, key=joined, value=joined, attn_mask=mask).mean(dim=(1, 2))
        joined = torch.cat([torch.add(images, images), images], 2)
        return attend(joined, joined, joined, mask).mean(dim=(1, 2))


def test_tensors_of_operators_without_weights_are_rounded_by_name_too_but_masks_are_not() -> None:
    images = torch.randn(8, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    exact, found = _Joined(by_name=False)(images), []
    for network in (_Joined(by_name=False), _Joined(by_name=True)):
        with fake_quantised(network, images):
            found.append(network(images))
    assert torch.equal(*found)
    assert 0 < float((found[0] - exact).abs().max()) < 0.1


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


def test_ranges_are_found_anew_when_a_network_is_evaluated_after_training() -> None:
    torch.manual_seed(0)
    network, images = _Residual(), torch.randn(32, 1, 8, 8)
    with fake_quantised(network, images):
        before = network.get_buffer("int8_high").clone()
        network.train()(10 * images)
        with torch.no_grad():
            network.first.weight *= 2
        assert torch.equal(network.get_buffer("int8_high"), before)
        network.eval()(10 * images)
        after = network.get_buffer("int8_high")
    assert after[:2].tolist() == pytest.approx([float(before[0]), 2 * float(before[1])])


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
    """A trained network with large weights on an input that is always 0.

    In float they do nothing. In int8 they leave no step for the other weights of their channels.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.ConstantPad3d((0, 0, 0, 0, 0, 1), 0.0), nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(16, 4)),
    )
    fit(network, dataset, SETTINGS, seed=0)
    weight = network[1].weight
    assert isinstance(weight, Tensor)
    with torch.no_grad():
        weight[:, 1:] = 400 * weight[:, :1].abs().amax((1, 2, 3), keepdim=True)
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
    assert before > 0.95
    assert quantised < 0.5
    names, goal = list(fragile.state_dict()), before - 0.15
    settings = SETTINGS.model_copy(update={"learning_rate": 0.01})
    result = fine_tune_in_int8(fragile, dataset, settings, seed=0, calibration=calibration, goal=goal)
    found = [each.validation_accuracy >= goal for each in result.history]
    assert found == [False] * (len(found) - 1) + [True]
    assert len(found) < settings.epochs
    assert list(fragile.state_dict()) == names
    # Without training the network again: what a quantiser will find.
    assert in_int8(fragile, dataset) == pytest.approx(result.best_validation_accuracy)


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


def test_losses_that_compare_layers_are_minimised_too(dataset: Dataset) -> None:
    torch.manual_seed(0)
    teacher = ConvNet(1, 4, width=6, depth=1).eval().requires_grad_(False)

    class Teacher:
        module = teacher

        def member_logits(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                return teacher(images)[None]  # type: ignore[no-any-return]

    settings = DistillationSettings(
        **dict(SETTINGS.model_copy(update={"epochs": 2})), loss=(LabelsSettings(), FitNetSettings())
    )
    result = fine_tune_in_int8(
        ConvNet(1, 4, width=4, depth=1),
        dataset,
        settings,
        seed=0,
        calibration=to_tensor(dataset.train.images[:64], dataset.preprocessing),
        goal=1.1,
        targets=LiveTargets(Teacher()),
    )
    first, last = result.history
    assert last.loss < first.loss
