"""The cells of NAS-Bench-201 as networks of torch: the benchmark's skeleton with one cell in each stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from cell_space import CODES, EDGES, OPERATIONS, PATHS, Cell, CellSpace, cell
from torch import Tensor, nn

WIDTHS = (16, 32, 64)


def live(whole: Cell) -> Cell:
    """The cell with "none" on every edge that leads nowhere: equal networks are equal cells."""
    operations = [CODES[operation] for _, operation in whole.choices]
    kept = {edge for path in PATHS if all(operations[edge] for edge in path) for edge in path}
    choices = enumerate(whole.choices)
    return Cell(tuple((edge, name if place in kept else "none") for place, (edge, name) in choices))


def is_connected(whole: Cell) -> bool:
    """Whether anything leads from the input to the output."""
    return any(operation != "none" for _, operation in live(whole).choices)


@dataclass(frozen=True)
class CellBlock:
    """A block as ``Space.build_block`` takes them."""

    kind: str
    input_shape: tuple[int, int, int]
    cell: Cell | None


class CellNetworks(CellSpace):
    """Networks of 32x32 images in 10 classes.

    As a space whose members share weights: connected cells are drawn, and the blocks by which the shapes of
    weights are known are those of cells with one operation everywhere.
    """

    input_shape = (3, 32, 32)

    def sample(self, generator) -> Cell:
        while not is_connected(found := super().sample(generator)):
            pass
        return found

    def distinct_blocks(self) -> tuple[CellBlock, ...]:
        everywhere = (cell([operation] * len(EDGES)) for operation in OPERATIONS[1:])
        return tuple(dict.fromkeys(block for each in everywhere for block in self.blocks(each)))

    def extreme(self, cost, *, largest: bool = False) -> Cell:
        found = [cell([operation] * len(EDGES)) for operation in OPERATIONS[1:]]
        return (max if largest else min)(found, key=lambda each: sum(map(cost, self.blocks(each))))

    def blocks(self, architecture: Cell) -> tuple[CellBlock, ...]:
        own, found, shape = live(architecture), [CellBlock("stem", self.input_shape, None)], (16, 32, 32)
        for width in WIDTHS:
            if width != shape[0]:
                found.append(CellBlock("reduction", shape, None))
                shape = (width, shape[1] // 2, shape[2] // 2)
            found.append(CellBlock("cell", shape, own))
        return (*found, CellBlock("head", shape, None))

    def build_block(self, block: CellBlock) -> nn.Module:
        channels = block.input_shape[0]
        match block.kind:
            case "stem":
                return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
            case "reduction":
                return Reduction(channels)
            case "cell":
                return CellModule(block.cell, channels)
        return nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, 10),
        )

    def build(self, architecture: Cell) -> nn.Module:
        return nn.Sequential(*map(self.build_block, self.blocks(architecture)))


class CellModule(nn.Module):
    """Four nodes; each is the sum of what its edges make of earlier nodes."""

    def __init__(self, cell: Cell, channels: int) -> None:
        super().__init__()
        self._ends = [tuple(map(int, edge.split("-"))) for edge in EDGES]
        self._names = [f"{edge} {name}" for edge, name in cell.choices]
        # By operation, so that weights are shared with cells that have the same one there.
        self.edges = nn.ModuleDict(
            {f"{edge} {name}": _operation(name, channels) for edge, name in cell.choices}
        )
        self._absent = [name == "none" for _, name in cell.choices]

    def forward(self, images: Tensor) -> Tensor:
        nodes = [images, None, None, None]
        for (start, end), name, absent in zip(self._ends, self._names, self._absent, strict=True):
            if not absent and nodes[start] is not None:
                made = self.edges[name](nodes[start])
                nodes[end] = made if nodes[end] is None else nodes[end] + made
        return torch.zeros_like(images) if nodes[3] is None else nodes[3]


class Reduction(nn.Module):
    """A residual block that halves the image and doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, 2 * channels, 3, stride=2)
        self.second = _convolution(2 * channels, 2 * channels, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        return self.shortcut(images) + self.second(self.first(images))


def _operation(name: str, channels: int) -> nn.Module:
    match name:
        case "nor_conv_3x3":
            return _convolution(channels, channels, 3)
        case "nor_conv_1x1":
            return _convolution(channels, channels, 1)
        case "avg_pool_3x3":
            return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Identity()


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )
