"""Multiply-accumulates and parameters of the mobile space's blocks, counted from their arguments."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.spaces.base import Block, Cost


def block_cost(block: Block) -> Cost:
    """Cost of one block.

    Raises:
        ValueError: a block of another space.
    """
    try:
        cost = _COSTS[block.kind]
        return cost(block.input_shape, {name: float(value) for name, value in block.arguments})
    except KeyError:
        raise _unknown(block) from None


def block_outputs(block: Block) -> int:
    """How many values a block gives for one image, with the error of ``block_cost``."""
    try:
        if block.kind == "head":
            return int(dict(block.arguments)["classes"])
        arguments = {name: int(value) for name, value in block.arguments}
        _, height, width = block.input_shape
        return arguments["out_channels"] * _pixels(height, width, arguments["stride"])
    except KeyError:
        raise _unknown(block) from None


def network_cost(blocks: Iterable[Block]) -> Cost:
    """Cost of the network that runs ``blocks``; every occurrence has parameters of its own."""
    return sum(map(block_cost, blocks), Cost(0, 0))


def squeezed_channels(in_channels: int, ratio: float) -> int:
    """Width inside a squeeze-and-excite gate; the ratio is of the block's input channels, as in MnasNet."""
    return max(1, int(in_channels * ratio))


def _unknown(block: Block) -> ValueError:
    return ValueError(f"the mobile space has no block of kind {block.kind!r} and such arguments")


def _stem(input_shape: tuple[int, int, int], arguments: dict[str, float]) -> Cost:
    channels, height, width = input_shape
    stride = int(arguments["stride"])
    return _convolution(channels, int(arguments["out_channels"]), 3, _pixels(height, width, stride))


def _mbconv(input_shape: tuple[int, int, int], arguments: dict[str, float]) -> Cost:
    channels, height, width = input_shape
    hidden = channels * int(arguments["expansion"])
    pixels = _pixels(height, width, int(arguments["stride"]))
    cost = _convolution(1, hidden, int(arguments["kernel"]), pixels)
    cost += _convolution(hidden, int(arguments["out_channels"]), 1, pixels)
    if hidden > channels:
        cost += _convolution(channels, hidden, 1, height * width)
    return cost + _gate(channels, hidden, arguments["squeeze_excite"])


def _regular(input_shape: tuple[int, int, int], arguments: dict[str, float]) -> Cost:
    channels, height, width = input_shape
    out_channels = int(arguments["out_channels"])
    pixels = _pixels(height, width, int(arguments["stride"]))
    cost = _convolution(channels, out_channels, int(arguments["kernel"]), pixels)
    return cost + _gate(channels, out_channels, arguments["squeeze_excite"])


def _head(input_shape: tuple[int, int, int], arguments: dict[str, float]) -> Cost:
    channels, height, width = input_shape
    features = int(arguments["width"])
    return _convolution(channels, features, 1, height * width) + _linear(features, int(arguments["classes"]))


_COSTS = {"stem": _stem, "mbconv": _mbconv, "regular": _regular, "head": _head}


def _convolution(channels_per_group: int, out_channels: int, kernel: int, pixels: int) -> Cost:
    """A convolution with its BatchNorm (parameters, but no MACs once folded)."""
    weights = channels_per_group * out_channels * kernel**2
    return Cost(weights * pixels, weights + 2 * out_channels)


def _gate(in_channels: int, gated: int, ratio: float) -> Cost:
    if ratio <= 0:
        return Cost(0, 0)
    squeezed = squeezed_channels(in_channels, ratio)
    return _linear(gated, squeezed) + _linear(squeezed, gated)


def _linear(inputs: int, outputs: int) -> Cost:
    return Cost(inputs * outputs, inputs * outputs + outputs)


def _pixels(height: int, width: int, stride: int) -> int:
    return -(-height // stride) * -(-width // stride)
