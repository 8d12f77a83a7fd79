from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from devices.requests.prediction import predict
from devices.target import Target
from pipeline.export.base import Format
from pipeline.export.blocks import export_modules
from pipeline.methods.subgraph.attention import Attention, separate_heads
from pipeline.methods.subgraph.structures import find_structures, removed
from tests.exporters_here import export_here
from tests.pipeline.methods.subgraph.networks import (
    SHAPE,
    Fused,
    HeadedLayer,
    Separate,
    Transformer,
    fused,
    images,
    multihead,
    seeded,
)


class HeadsFirst(Fused):
    """The fused layer gives queries, keys and values of one head after the other, as in GPT-NeoX."""

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, channels = tokens.shape
        parts = self.qkv(tokens).view(count, length, self.num_heads, -1).transpose(1, 2)
        queries, keys, values = parts.chunk(3, dim=-1)
        weights = (queries @ keys.mT / (channels // self.num_heads) ** 0.5).softmax(dim=-1)
        return self.proj((weights @ values).transpose(1, 2).reshape(count, length, channels))


class Biased(Fused):
    """A bias on the scores, as of relative positions."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads)
        self.bias = nn.Parameter(torch.randn(heads, 16, 16))

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, channels = tokens.shape
        parts = self.qkv(tokens).reshape(count, length, 3, self.num_heads, channels // self.num_heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        outputs = (queries @ keys.mT + self.bias).softmax(dim=-1) @ values
        return self.proj(outputs.transpose(1, 2).reshape(count, length, channels))


class Causal(Fused):
    """Tokens see only those before them; there is no parameter by which this could be known."""

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, channels = tokens.shape
        parts = self.qkv(tokens).reshape(count, length, 3, self.num_heads, channels // self.num_heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        outputs = nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return self.proj(outputs.transpose(1, 2).reshape(count, length, channels))


class ReadsWeights(nn.Module):
    """Uses what the heads looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        given, weights = self.attention(tokens, tokens, tokens)
        return given + weights.mean()


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.mask: Tensor
        self.register_buffer("mask", torch.ones(16, 16).triu(1).bool())

    def forward(self, tokens: Tensor) -> Tensor:
        given: Tensor = self.attention(tokens, tokens, tokens, attn_mask=self.mask)[0]
        return given


class LengthFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        turned = tokens.transpose(0, 1)
        given: Tensor = self.attention(turned, turned, turned)[0]
        return given.transpose(0, 1)


def network_of(attention: Callable[[], nn.Module]) -> nn.Module:
    return seeded(lambda: Transformer([HeadedLayer(12, 16, attention())]).eval())()


def attentions(network: nn.Module) -> list[Attention]:
    return [each for each in network.modules() if isinstance(each, Attention)]


@pytest.mark.parametrize(
    ("attention", "heads"),
    [
        (lambda: Separate(12, 3), 3),
        (lambda: Separate(12, 2), 2),
        (lambda: Fused(12, 4), 4),
        (lambda: HeadsFirst(12, 4), 4),
        (lambda: nn.MultiheadAttention(12, 6, batch_first=True), 6),
        (LengthFirst, 3),
    ],
    ids=["separate", "two heads", "fused", "heads first", "torch", "length first"],
)
def test_attention_is_read_whatever_the_order_of_its_layers_and_gives_the_same(
    attention: Callable[[], nn.Module], heads: int
) -> None:
    network = network_of(attention)
    separated = copy.deepcopy(network)
    separate_heads(separated, images(2))
    (found,) = attentions(separated)
    assert found.heads == heads
    with torch.no_grad():
        torch.testing.assert_close(separated(images(5)), network(images(5)), rtol=1e-4, atol=1e-5)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert sum(parameter.numel() for parameter in separated.parameters()) == count


@pytest.mark.parametrize(
    "attention",
    [lambda: Biased(12, 4), lambda: Causal(12, 4), ReadsWeights, Masked],
    ids=["biased", "causal", "weights are read", "masked"],
)
def test_what_is_another_function_is_left_as_it_is(attention: Callable[[], nn.Module]) -> None:
    network = network_of(attention)
    before = dict(network.named_modules())
    separate_heads(network, images(2))
    assert dict(network.named_modules()) == before
    assert "heads" not in {each.kind for each in find_structures(network, SHAPE)}


def test_one_head_and_perceptrons_are_not_taken_for_heads() -> None:
    network = network_of(lambda: Fused(12, 1))
    network.layers.append(nn.Sequential(nn.Linear(12, 36), nn.GELU(), nn.Linear(36, 12)))
    separate_heads(network, images(2))
    assert not attentions(network)


def test_attention_that_is_called_twice_is_left_as_it_is() -> None:
    def shared() -> nn.Module:
        layer = HeadedLayer(12, 16, Fused(12, 4))
        return Transformer([layer, layer]).eval()

    network = seeded(shared)()
    separate_heads(network, images(2))
    assert not attentions(network)


def test_frozen_weights_stay_frozen() -> None:
    network = network_of(lambda: Fused(12, 4)).requires_grad_(False)
    separate_heads(network, images(2))
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.slow
def test_transformers_with_fewer_heads_answer_alike_on_both_runtimes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_here(monkeypatch.setattr)
    modules: dict[Any, Any] = {}
    for name, network in {"fused": fused(), "multihead": multihead()}.items():
        kept = {"layers.0.attention": [1, 2], "layers.1.attention": [0], "layers.1.perceptron.1": [0, 3]}
        modules[name] = removed(network, SHAPE, find_structures(network, SHAPE), kept), SHAPE
    for fmt, target in {
        Format.ONNX: Target("host", "onnxruntime"),
        Format.LITERT: Target("host", "litert"),
    }.items():
        (folder := tmp_path / fmt.runtime).mkdir()
        files = export_modules(modules, fmt, folder)
        for name, (module, _) in modules.items():
            with torch.no_grad():
                expected = module(images())
            fed = images() if fmt is Format.ONNX else images().permute(0, 2, 3, 1)
            outputs = predict(files[name], fed.contiguous().numpy(), target)
            np.testing.assert_allclose(outputs, expected.numpy(), rtol=1e-3, atol=1e-4)
