"""Units by themselves: what is measured of a model space, and the form in which it is exported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from latency_db.tables import BlockSizes
from pipeline.integrations.nni.errors import NniError
from pipeline.integrations.nni.networks import Networks, Shape, check_output
from pipeline.integrations.nni.recording import trace
from pipeline.integrations.nni.units import Sample, Unit

Image = tuple[int, int, int]


@dataclass(frozen=True)
class UnitBlock:
    """What a unit does with inputs of one shape; equal ones do the same.

    Attributes:
        identity: digest of the operations with their shapes and types, without names and weights' values.
        unit: where it was met.
        sample: choices that make it there.
        shape: of its input.
        description: for people.
        sizes: sizes.
    """

    identity: str
    unit: Unit = field(compare=False)
    sample: Sample = field(compare=False)
    shape: Shape = field(compare=False)
    description: str = field(compare=False)
    sizes: BlockSizes = field(compare=False)

    @property
    def image_shape(self) -> Image:
        """Channels, height and width of the input of the exported block."""
        return image_shape(self.shape)

    def exportable(self, networks: Networks) -> nn.Module:
        """The block for an input of ``image_shape``."""
        return as_image(networks.build_unit(self.unit, self.sample), self.shape)


def unit_block(networks: Networks, unit: Unit, sample: Sample, shape: Shape) -> UnitBlock | None:
    """The block of a unit at a sample for inputs of a shape; ``None`` where nothing is computed.

    Raises:
        NniError: the unit cannot be made, does not run by itself, or returns other than one tensor.
    """
    module = networks.build_unit(unit, sample)
    inputs = torch.zeros(1, *shape)
    try:
        found = trace(module, inputs)
    except Exception as error:  # users' modules run their own code
        raise NniError(
            f"'{unit}' does not run by itself with an input of shape {tuple(inputs.shape)}",
            why=f"{type(error).__name__}: {error}",
            fix="let it work without what other modules have done before",
        ) from error
    if found.identity is None:
        return None
    output = check_output(found.output, f"'{unit}'")
    choices = ", ".join(f"{label}={sample[label]}" for label in unit.labels)
    size = "x".join(map(str, shape))
    return UnitBlock(
        found.identity,
        unit,
        sample,
        shape,
        f"{type(module).__name__} {size} at {unit}" + (f" ({choices})" if choices else ""),
        BlockSizes(
            inputs.nbytes + output.nbytes, sum(each.nbytes for each in module.parameters()), found.macs
        ),
    )


def as_image(module: nn.Module, shape: Shape) -> nn.Module:
    """The module, for an input of ``image_shape(shape)``."""
    return module if len(shape) == 3 else _AsImage(module, shape)


def image_shape(shape: Shape) -> Image:
    """Channels, height and width of the four-axis input that stands for one of ``shape``.

    Axes of size 1 are added so that nothing has to be moved.
    """
    match shape:
        case (channels, height, width):
            return channels, height, width
        case (length, channels):
            return 1, length, channels
        case (channels,):
            return channels, 1, 1
    raise AssertionError(f"an input of shape {shape} was accepted")


class _AsImage(nn.Module):
    def __init__(self, module: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.module = module
        self.shape = shape

    def forward(self, features: Tensor) -> Any:
        return self.module(features.reshape(features.shape[0], *self.shape))
