"""The cells of NAS-Bench-201 as networks of torch: the benchmark's skeleton with one cell in each stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from cell_space import CODES, EDGES, PATHS, Cell, CellSpace
from torch import Tensor, nn

WIDTHS = (16, 32, 64)


def live(cell: Cell) -> Cell:
    """The cell with "none" on every edge that leads nowhere: equal networks are equal cells."""
    operations = [CODES[operation] for _, operation in cell.choices]
    kept = {edge for path in PATHS if all(operations[edge] for edge in path) for edge in path}
    choices = enumerate(cell.choices)
    return Cell(tuple((edge, name if place in kept else "none") for place, (edge, name) in choices))


def is_connected(cell: Cell) -> bool:
    """Whether anything leads from the input to the output."""
    return any(operation != "none" for _, operation in live(cell).choices)


@dataclass(frozen=True)
class CellBlock:
    """A block as ``Space.build_block`` takes them."""

    kind: str
    input_shape: tuple[int, int, int]
    cell: Cell


class CellNetworks(CellSpace):
    """Networks of 32x32 images in 10 classes."""

    def blocks(self, architecture: Cell) -> tuple[CellBlock, ...]:
        cell, found, shape = live(architecture), [CellBlock("stem", (3, 32, 32), architecture)], (16, 32, 32)
        for width in WIDTHS:
            if width != shape[0]:
                found.append(CellBlock("reduction", shape, cell))
                shape = (width, shape[1] // 2, shape[2] // 2)
            found.append(CellBlock("cell", shape, cell))
        return (*found, CellBlock("head", shape, cell))

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
        self.edges = nn.ModuleList(_operation(name, channels) for _, name in cell.choices)
        self._absent = [name == "none" for _, name in cell.choices]

    def forward(self, images: Tensor) -> Tensor:
        nodes = [images, None, None, None]
        for (start, end), edge, absent in zip(self._ends, self.edges, self._absent, strict=True):
            if not absent and nodes[start] is not None:
                made = edge(nodes[start])
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
