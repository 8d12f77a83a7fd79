"""Multiply-accumulates and parameters of the blocks of Lathe's spaces, counted from their arguments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.spaces.base import Block, Cost


def block_cost(block: Block) -> Cost:
    """Cost of one block.

    Raises:
        ValueError: a block of another space.
    """
    try:
        cost = _COSTS[block.kind]
        return cost(block.input_shape, dict(block.arguments))
    except KeyError:
        raise _unknown(block) from None


def block_outputs(block: Block) -> int:
    """How many values a block gives for one image, with the error of ``block_cost``."""
    if block.kind not in _COSTS:
        raise _unknown(block)
    arguments = dict(block.arguments)
    if "classes" in arguments:
        return int(arguments["classes"])
    channels, height, width = block.input_shape
    pixels = _pixels(height, width, int(arguments.get("stride", 1)))
    return int(arguments.get("out_channels", channels)) * pixels


def network_cost(blocks: Iterable[Block]) -> Cost:
    """Cost of the network that runs ``blocks``; every occurrence has parameters of its own."""
    return sum(map(block_cost, blocks), Cost(0, 0))


def squeezed_channels(in_channels: int, ratio: float) -> int:
    """Width inside a squeeze-and-excite gate; the ratio is of the block's input channels, as in MnasNet."""
    return max(1, int(in_channels * ratio))


def _unknown(block: Block) -> ValueError:
    return ValueError(f"no space has a block of kind {block.kind!r} and such arguments")


def _stem(input_shape: tuple[int, int, int], arguments: dict[str, Any]) -> Cost:
    channels, height, width = input_shape
    stride = arguments["stride"]
    return _convolution(channels, arguments["out_channels"], 3, _pixels(height, width, stride))


def _mbconv(input_shape: tuple[int, int, int], arguments: dict[str, Any]) -> Cost:
    channels, height, width = input_shape
    hidden = channels * arguments["expansion"]
    pixels = _pixels(height, width, arguments["stride"])
    cost = _convolution(1, hidden, arguments["kernel"], pixels)
    cost += _convolution(hidden, arguments["out_channels"], 1, pixels)
    if hidden > channels:
        cost += _convolution(channels, hidden, 1, height * width)
    return cost + _gate(channels, hidden, arguments["squeeze_excite"])


def _regular(input_shape: tuple[int, int, int], arguments: dict[str, Any]) -> Cost:
    channels, height, width = input_shape
    out_channels = arguments["out_channels"]
    pixels = _pixels(height, width, arguments["stride"])
    cost = _convolution(channels, out_channels, arguments["kernel"], pixels)
    return cost + _gate(channels, out_channels, arguments["squeeze_excite"])


def _head(input_shape: tuple[int, int, int], arguments: dict[str, Any]) -> Cost:
    channels, height, width = input_shape
    features = arguments["width"]
    return _convolution(channels, features, 1, height * width) + _linear(features, arguments["classes"])


def _residual(input_shape: tuple[int, int, int], arguments: dict[str, Any]) -> Cost:
    channels, height, width = input_shape
    outputs, stride = arguments["out_channels"], arguments["stride"]
    pixels = _pixels(height, width, stride)
    cost = _convolution(channels, outputs, 3, pixels) + _convolution(outputs, outputs, 3, pixels)
    keeps_shape = stride == 1 and channels == outputs
    return cost if keeps_shape else cost + _convolution(channels, outputs, 1, pixels)


def _add_on(input_shape: tuple[int, int, int], arguments: dict[str, Any]) -> Cost:
    channels, height, width = input_shape
    pixels = height * width
    match arguments["operation"]:
        case "conv3" | "conv5" as name:
            return _convolution(channels, channels, int(name[-1]), pixels)
        case "separable3" | "separable5" as name:
            return _convolution(1, channels, int(name[-1]), pixels) + _convolution(
                channels, channels, 1, pixels
            )
        case _:
            return Cost(0, 0)


def _classifier(input_shape: tuple[int, int, int], arguments: dict[str, Any]) -> Cost:
    return _linear(input_shape[0], arguments["classes"])


_COSTS = {
    "stem": _stem,
    "mbconv": _mbconv,
    "regular": _regular,
    "head": _head,
    "residual": _residual,
    "add_on": _add_on,
    "classifier": _classifier,
}


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
