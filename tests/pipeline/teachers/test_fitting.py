from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.errors import TeacherError
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.fitting import fit_weights


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return ConvNet(1, 3, width=2, depth=1).eval()


def same(first: nn.Module, second: nn.Module) -> bool:
    images = torch.rand(2, 1, 8, 8)
    return torch.equal(first(images), second(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_taken_as_single(dtype: torch.dtype) -> None:
    weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in network().state_dict().items()}
    other = network(1)
    fit_weights(other, weights, "w")
    assert torch.equal(other.state_dict()["head.weight"], weights["head.weight"].float())


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "student.encoder.", "_orig_mod.net."])
def test_any_prefix_with_which_everything_fits_is_found(prefix: str) -> None:
    weights = {prefix + name: value for name, value in network().state_dict().items()}
    other = network(1)
    fit_weights(other, weights, "w")
    assert same(other, network())


def test_a_prefix_of_the_network_may_lack_in_the_file() -> None:
    other = nn.ModuleDict({"net": network(1)})
    fit_weights(other, {f"module.{name}": value for name, value in network().state_dict().items()}, "w")
    assert same(other["net"], network())


def test_what_lies_beside_the_prefix_is_left_out_and_told() -> None:
    weights = {"model." + name: value for name, value in network().state_dict().items()}
    told: list[str] = []
    other = network(1)
    fit_weights(other, {**weights, "criterion.weight": torch.ones(3)}, "w", told.append)
    assert same(other, network())
    assert told == ["weights      w: those below 'model.' are taken, 1 others are not: criterion.weight"]


def test_of_several_prefixes_that_fit_one_is_asked_for() -> None:
    weights = {
        **{"model." + name: value for name, value in network().state_dict().items()},
        **{"ema_model.module." + name: value for name, value in network(1).state_dict().items()},
    }
    with pytest.raises(TeacherError, match="more than once") as caught:
        fit_weights(network(), weights, "w")
    assert "'model.' and those with 'ema_model.module.'" in caught.value.why
    assert "weights_key = 'ema_model.module'" in caught.value.fix


def test_a_prefix_that_the_network_has_itself_is_kept() -> None:
    inner = nn.ModuleDict({"model": network()})
    other = nn.ModuleDict({"model": network(1)})
    fit_weights(other, inner.state_dict(), "w")
    assert same(other["model"], inner["model"])


def test_fit_weights_accepts_batch_norm_without_its_counters() -> None:
    weights = {k: v for k, v in network().state_dict().items() if "num_batches_tracked" not in k}
    other = network(1)
    fit_weights(other, weights, "w")
    assert same(other, network())


def test_fit_weights_lists_every_name_and_shape_that_does_not_fit() -> None:
    weights = dict(network().state_dict())
    weights["extra.weight"] = torch.zeros(1)
    weights["head.bias"] = torch.zeros(10)
    del weights["head.weight"]
    with pytest.raises(TeacherError, match="w does not fit") as caught:
        fit_weights(network(), weights, "w")
    assert "missing: head.weight" in caught.value.why
    assert "unexpected: extra.weight" in caught.value.why
    assert "head.bias is (10,), expected (3,)" in caught.value.why
