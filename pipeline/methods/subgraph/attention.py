"""Attention whose heads can be removed, put in place of attention that is the same function.

In most attention, the number of heads is a constant of ``forward`` or fixed to the channels of the tokens, so
that nothing can be taken out of it. Which of its layers are queries, keys and values, how a fused layer has
them in order and how many heads there are does not go by names: readings are tried until one gives what the
module gave.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_TOLERANCE = 1e-4


class Attention(nn.Module):
    """Scaled dot-product attention of several heads (1706.03762), without masks and dropout.

    Attributes:
        heads: how many there are.

    Args:
        layers: queries, keys and values: linear, tokens to ``heads * d`` values, one head after the other.
        project: linear, back to tokens.
        heads: how many.
        scale: of the scores.
        batch_first: tokens are ``(N, L, C)``, not ``(L, N, C)``.
        gives: how many values it returns, in place of the tokens alone: the others are ``None``.
    """

    def __init__(
        self,
        layers: Sequence[nn.Linear],
        project: nn.Linear,
        *,
        heads: int,
        scale: float,
        batch_first: bool = True,
        gives: int | None = None,
    ) -> None:
        super().__init__()
        self.queries, self.keys, self.values = layers
        self.project = project
        self.heads = heads
        self._scale, self._batch_first, self._gives = scale, batch_first, gives

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Attention of tokens to themselves, or of the first of three tensors to the two others.

        Raises:
            TypeError: there is another tensor, such as a mask.
        """
        given = [
            each for each in (*arguments, *options.values()) if not isinstance(each, int | float | str | None)
        ]
        if len(given) not in (1, 3):
            raise TypeError("attention with masks or biases is not understood")
        given = given * 3 if len(given) == 1 else given
        if not self._batch_first:
            given = [each.transpose(0, 1) for each in given]
        queries, keys, values = (
            layer(each).unflatten(-1, (self.heads, layer.out_features // self.heads)).transpose(1, 2)
            for layer, each in zip((self.queries, self.keys, self.values), given, strict=True)
        )
        scores = (queries @ keys.transpose(-2, -1)) * self._scale
        outputs = self.project((scores.softmax(dim=-1) @ values).transpose(1, 2).flatten(2))
        outputs = outputs if self._batch_first else outputs.transpose(0, 1)
        return outputs if self._gives is None else (outputs, *(None,) * (self._gives - 1))

    def remove(self, heads: Sequence[int]) -> None:
        """Take heads out."""
        from torch_pruning import prune_linear_in_channels, prune_linear_out_channels

        for layer in (self.queries, self.keys, self.values):
            prune_linear_out_channels(layer, self._channels(heads, layer.out_features))
        prune_linear_in_channels(self.project, self._channels(heads, self.project.in_features))
        self.heads -= len(heads)

    def _channels(self, heads: Sequence[int], channels: int) -> list[int]:
        each = channels // self.heads
        return [head * each + channel for head in heads for channel in range(each)]


@dataclass(frozen=True)
class _Call:
    """What a module was given, and what it gave."""

    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    output: Any


def separate_heads(network: nn.Module, images: Tensor) -> None:
    """Put ``Attention`` in place of all modules that can be read as such, and are called once.

    Nothing is replaced where the network then gives something else: it reads attention weights, or the layers
    themselves.

    Args:
        network: changed in place, and in evaluation mode afterwards; its function stays the same.
        images: ``(2, C, H, W)``, on which the modules are compared.
    """
    network.eval()
    before = _call(network, (images,), {})
    replaced = _replace_modules(network, images)
    if replaced and not _gives_the_same(network, _Call((images,), {}, before)):
        for name, module in replaced.items():
            _put(network, name, module)


def _replace_modules(network: nn.Module, images: Tensor) -> dict[str, nn.Module]:
    """Returns what was there before, by name."""
    maybe = {name: module for name, module in network.named_modules() if name and _could_be(module)}
    calls, order = _calls(network, maybe, images)
    replaced: dict[str, nn.Module] = {}
    # From the inside: a layer around an attention has its linear layers, too.
    for name in sorted(maybe, key=lambda each: each.count("."), reverse=True):
        if name not in calls or any(inner.startswith(f"{name}.") for inner in replaced):
            continue
        for reading in _readings(maybe[name], calls[name], order):
            if _gives_the_same(reading, calls[name]):
                _put(network, name, reading.eval())
                replaced[name] = maybe[name]
                break
    return replaced


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def _call(module: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    with torch.no_grad():
        return module(*arguments, **options)


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [each for each in module.modules() if isinstance(each, nn.Linear)]


def _could_be(module: nn.Module) -> bool:
    """Whether all its parameters are those of a fused and one more linear layer, or of four."""
    if isinstance(module, Attention):
        return False
    if isinstance(module, nn.MultiheadAttention):
        return module.in_proj_weight is not None and module.bias_k is None and not module.add_zero_attn
    linears = _linears(module)
    own = {id(parameter) for parameter in module.parameters()}
    of_linears = {id(parameter) for layer in linears for parameter in layer.parameters()}
    return len(linears) in (2, 4) and own == of_linears


def _calls(
    network: nn.Module, maybe: Mapping[str, nn.Module], images: Tensor
) -> tuple[dict[str, _Call], dict[nn.Module, int]]:
    """Calls of modules that are called once, and the order in which their linear layers end."""
    calls: dict[str, list[_Call]] = {name: [] for name in maybe}
    order: dict[nn.Module, int] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
            calls[name].append(_Call(arguments, options, output))

        return hook

    def count(layer: nn.Module, _: Any, __: Any) -> None:
        order[layer] = len(order)

    handles = [module.register_forward_hook(note(name), with_kwargs=True) for name, module in maybe.items()]
    handles += [layer.register_forward_hook(count) for layer in _linears(network)]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: once[0] for name, once in calls.items() if len(once) == 1}, order


def _readings(module: nn.Module, call: _Call, order: Mapping[nn.Module, int]) -> Iterator[Attention]:
    """Every attention that a module could be."""
    gives = len(call.output) if isinstance(call.output, tuple) else None
    if isinstance(module, nn.MultiheadAttention):
        assert module.in_proj_weight is not None
        rows = torch.arange(3 * module.embed_dim).view(3, -1)
        projections = [_rows(module.in_proj_weight, module.in_proj_bias, each) for each in rows]
        yield Attention(
            projections,
            _rows(module.out_proj.weight, module.out_proj.bias),
            heads=module.num_heads,
            scale=module.head_dim**-0.5,
            batch_first=module.batch_first,
            gives=gives,
        )
        return
    linears = sorted(_linears(module), key=lambda each: order.get(each, -1))
    before, project = linears[:-1], linears[-1]
    channels = project.in_features
    for heads in range(2, channels + 1):
        if channels % heads:
            continue
        fused = _fused(before[0], heads, channels) if len(before) == 1 else ()
        for layers in fused or itertools.permutations(before, 3):
            if any(layer.out_features != channels for layer in layers):
                continue
            for scale in ((channels // heads) ** -0.5, 1.0):
                yield Attention(layers, project, heads=heads, scale=scale, gives=gives)


def _fused(layer: nn.Linear, heads: int, channels: int) -> Iterator[tuple[nn.Linear, ...]]:
    """Queries, keys and values of one layer, in the three orders of these, heads, and a head's channels."""
    if layer.out_features != 3 * channels:
        return
    rows, each = torch.arange(3 * channels), channels // heads
    for ordered in (
        rows.view(3, channels),
        rows.view(heads, 3, each).transpose(0, 1).reshape(3, channels),
        rows.view(heads, each, 3).permute(2, 0, 1).reshape(3, channels),
    ):
        yield tuple(_rows(layer.weight, layer.bias, part) for part in ordered)


def _rows(weight: Tensor, bias: Tensor | None, rows: Tensor | None = None) -> nn.Linear:
    """A linear layer of some rows of another, or of all."""
    rows = torch.arange(len(weight)) if rows is None else rows
    layer = nn.Linear(weight.shape[1], len(rows), bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach()[rows], requires_grad=weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach()[rows], requires_grad=weight.requires_grad)
    return layer


def _gives_the_same(module: nn.Module, call: _Call) -> bool:
    """Of a tuple the first value counts: only attention weights may lie behind it."""
    try:
        given = _call(module, call.arguments, call.options)
    except Exception:  # Shapes and arguments may be wrong in any way; then it is another function.
        return False
    expected = call.output
    if isinstance(expected, tuple):
        given, expected = given[0], expected[0]
    if not isinstance(expected, Tensor) or given.shape != expected.shape:
        return False
    return bool((given - expected).abs().max() <= _TOLERANCE * (1 + expected.abs().max()))
