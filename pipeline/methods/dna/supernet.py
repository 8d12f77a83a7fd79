"""The supernet of one cell: layers with candidate operations, of which a path runs one in each layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.spaces.dna.config import CellConfig, Shape
from pipeline.spaces.dna.space import DnaSpace
from pipeline.spaces.layers import InvertedResidual, initialise

Path = tuple[int, ...]
"""The candidate of each layer, by its number."""


class Supernet(nn.Module):
    """Layers with candidates; a layer that offers no choice has one.

    Args:
        layers: candidates of each layer, which take and give features of the same shapes.
    """

    def __init__(self, layers: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList(candidates) for candidates in layers)

    @property
    def choices(self) -> tuple[int, ...]:
        """How many candidates each layer has."""
        return tuple(len(candidates) for candidates in self.candidates())

    def candidates(self) -> list[list[nn.Module]]:
        """The candidates of each layer."""
        return [list(layer.children()) for layer in self.layers]

    def path_modules(self, path: Path) -> list[nn.Module]:
        """The modules that a path runs, in order."""
        return [each[index] for each, index in zip(self.candidates(), path, strict=True)]

    def forward(self, features: Tensor, path: Path) -> Tensor:
        """Run one path: ``(N, C, H, W)`` to ``(N, C', H', W')``."""
        for module in self.path_modules(path):
            features = module(features)
        return features

    def draw(self, generator: torch.Generator) -> Path:
        """A path, each equally likely."""
        return tuple(int(torch.randint(count, (), generator=generator)) for count in self.choices)


def cell_supernet(space: DnaSpace, block: int, cell: CellConfig, inputs: Shape, outputs: Shape) -> Supernet:
    """The supernet of one cell of one block (counted from 0) between the teacher's features.

    The first layer takes the teacher's channels and the last one gives them; between them the cell has its
    own width. The first block begins with the student's stem instead. Weights come from torch's global
    generator.

    Args:
        space: the student's.
        block: which one.
        cell: which of its cells.
        inputs: channels, height, width of the teacher's features that enter the block; unused in the first.
        outputs: those of the features at its end.
    """
    layers: list[list[nn.Module]] = []
    if block == 0:
        layers.append([space.build_block(space.stem())])
        channels = space.config.stem_width
    else:
        channels = inputs[0]
    config = space.config.blocks[block]
    for layer in range(cell.depth):
        out_channels = outputs[0] if layer == cell.depth - 1 else cell.width
        layers.append(
            [
                InvertedResidual(
                    channels,
                    out_channels,
                    kernel=operation.kernel,
                    stride=1 if layer else config.stride,
                    expansion=operation.expansion,
                    squeeze_excite=config.squeeze_excite,
                )
                for operation in space.operations(block)
            ]
        )
        channels = out_channels
    supernet = Supernet(layers)
    initialise(supernet)
    return supernet


def block_supernets(space: DnaSpace, block: int, inputs: Shape, outputs: Shape, seed: int) -> list[Supernet]:
    """The supernets of all cells of a block; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cells = space.config.blocks[block].cells
        return [cell_supernet(space, block, cell, inputs, outputs) for cell in cells]
