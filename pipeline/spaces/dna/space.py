"""The space of DNA (1911.13053): blocks aligned with a teacher's, several cells per block.

A cell fixes the depth and width of a block; each of its layers is an inverted residual with an operation of
its own. Decisions are ``block1.cell`` (``2x24`` is a depth of 2 and a width of 24), ``block1.layer1``
(``k3e4`` is a kernel of 3 and an expansion of 4), and so on; a layer that the chosen cell lacks is not
decided.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.spaces.base import Architecture, Block, Choice, Condition, Decision
from pipeline.spaces.dna.config import CellConfig, DnaSpaceConfig, Shape
from pipeline.spaces.modules import ModuleSpace


class LayerOperation(NamedTuple):
    """What a layer does."""

    kernel: int
    expansion: int

    @property
    def name(self) -> str:
        """As in a decision."""
        return f"k{self.kernel}e{self.expansion}"


class BlockChoice(NamedTuple):
    """What an architecture chooses for one block."""

    cell: CellConfig
    operations: tuple[LayerOperation, ...]


@dataclass(frozen=True)
class DnaSpace(ModuleSpace):
    """Stem, blocks of inverted residuals, head; a ``Space`` with the kinds of block of the mobile space."""

    config: DnaSpaceConfig
    input_shape: Shape
    classes: int

    def __post_init__(self) -> None:
        if min(*self.input_shape, self.classes) < 1:
            raise ValueError(
                f"input shape {self.input_shape} and {self.classes} classes must all be positive"
            )

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Of each block the cell, then the operations of as many layers as its deepest cell has."""
        found = []
        for index, block in enumerate(self.config.blocks):
            cell = f"block{index + 1}.cell"
            found.append(Decision(cell, tuple(each.name for each in block.cells)))
            operations = tuple(operation.name for operation in self.operations(index))
            for layer in range(max(each.depth for each in block.cells)):
                deep = tuple(each.name for each in block.cells if each.depth > layer)
                condition = None if len(deep) == len(block.cells) else Condition(cell, deep)
                found.append(Decision(f"block{index + 1}.layer{layer + 1}", operations, condition))
        return tuple(found)

    @property
    def description(self) -> dict[str, object]:
        """Config, input shape and classes."""
        return {
            "space": "dna",
            "version": 1,
            "config": self.config.model_dump(mode="json"),
            "input_shape": list(self.input_shape),
            "classes": self.classes,
        }

    def operations(self, block: int) -> tuple[LayerOperation, ...]:
        """The operations that every layer of a block (counted from 0) chooses from."""
        config = self.config.blocks[block]
        return tuple(itertools.starmap(LayerOperation, itertools.product(config.kernels, config.expansions)))

    def architecture(self, choices: Sequence[BlockChoice]) -> Architecture:
        """The architecture with these choices, one per block."""
        chosen: dict[str, Choice] = {}
        for number, (cell, operations) in enumerate(choices, start=1):
            chosen[f"block{number}.cell"] = cell.name
            for layer, operation in enumerate(operations, start=1):
                chosen[f"block{number}.layer{layer}"] = operation.name
        return Architecture(tuple((d.name, chosen.get(d.name, d.choices[0])) for d in self.decisions))

    def block_choices(self, architecture: Architecture) -> tuple[BlockChoice, ...]:
        """The cell and the operations of each block."""
        chosen = dict(architecture.choices)
        found = []
        for index, block in enumerate(self.config.blocks):
            cell = next(each for each in block.cells if each.name == chosen[f"block{index + 1}.cell"])
            named = {operation.name: operation for operation in self.operations(index)}
            layers = [chosen[f"block{index + 1}.layer{layer + 1}"] for layer in range(cell.depth)]
            found.append(BlockChoice(cell, tuple(named[str(layer)] for layer in layers)))
        return tuple(found)

    def reference(self) -> Architecture:
        """The deepest of the widest cells, the largest expansion, and kernel 5 where it is offered."""
        choices = []
        for block in self.config.blocks:
            cell = max(block.cells, key=lambda each: (each.width, each.depth))
            kernel = 5 if 5 in block.kernels else max(block.kernels)
            choices.append(BlockChoice(cell, (LayerOperation(kernel, max(block.expansions)),) * cell.depth))
        return self.architecture(choices)

    def blocks(self, architecture: Architecture) -> tuple[Block, ...]:
        """Stem, every inverted residual, head."""
        blocks, width = [self.stem()], self.config.stem_width
        for index, (cell, operations) in enumerate(self.block_choices(architecture)):
            for layer, operation in enumerate(operations):
                blocks.append(self.layer(index, width, cell.width, layer, operation))
                width = cell.width
        return (*blocks, self.head(width))

    def distinct_blocks(self) -> tuple[Block, ...]:
        """Stem, every inverted residual by block, heads; without going through the architectures."""
        found = {self.stem(): None}
        for index, block in enumerate(self.config.blocks):
            for cell, operation in itertools.product(block.cells, self.operations(index)):
                for width in self.widths_into(index):
                    found[self.layer(index, width, cell.width, 0, operation)] = None
                if cell.depth > 1:
                    found[self.layer(index, cell.width, cell.width, 1, operation)] = None
        heads = map(self.head, self.widths_into(len(self.config.blocks)))
        return tuple(found | dict.fromkeys(heads))

    def extreme(self, cost: Callable[[Block], float], *, largest: bool = False) -> Architecture:
        """Exact, by dynamic programming over the blocks; the state is the width that enters a block.

        An infinite cost keeps its block out of the smallest architecture wherever another exists, as does a
        negative infinite one out of the largest; the first of equals wins.
        """
        price = functools.cache(lambda block: -cost(block) if largest else cost(block))
        # Per width that enters the next block: cheapest total so far and the choices that lead there.
        best: dict[int, tuple[float, tuple[BlockChoice, ...]]] = {
            self.config.stem_width: (price(self.stem()), ())
        }
        for index, block in enumerate(self.config.blocks):
            reached: dict[int, tuple[float, tuple[BlockChoice, ...]]] = {}
            for (width, (before, path)), cell in itertools.product(best.items(), block.cells):
                total, operations = before, []
                for layer in range(cell.depth):
                    entering = cell.width if layer else width
                    options = {
                        operation: price(self.layer(index, entering, cell.width, layer, operation))
                        for operation in self.operations(index)
                    }
                    operations.append(min(options, key=options.__getitem__))
                    total += options[operations[-1]]
                if cell.width not in reached or total < reached[cell.width][0]:
                    reached[cell.width] = (total, (*path, BlockChoice(cell, tuple(operations))))
            best = reached
        totals = {width: total + price(self.head(width)) for width, (total, _) in best.items()}
        return self.architecture(best[min(totals, key=totals.__getitem__)][1])

    def stem(self) -> Block:
        """The stem, which belongs to the first block."""
        arguments = (("out_channels", self.config.stem_width), ("stride", self.config.stem_stride))
        return Block("stem", self.input_shape, arguments)

    def layer(
        self, block: int, in_width: int, out_width: int, layer: int, operation: LayerOperation
    ) -> Block:
        """A layer (counted from 0) of a block between two widths."""
        config = self.config.blocks[block]
        arguments = (
            ("expansion", operation.expansion),
            ("kernel", operation.kernel),
            ("out_channels", out_width),
            ("squeeze_excite", config.squeeze_excite),
            ("stride", 1 if layer else config.stride),
        )
        return Block("mbconv", (in_width, *self.size_into(block + (layer > 0))), arguments)

    def head(self, width: int) -> Block:
        """The head after a last block of this width."""
        arguments = (("classes", self.classes), ("width", self.config.head_width))
        return Block("head", (width, *self.size_into(len(self.config.blocks))), arguments)

    def widths_into(self, block: int) -> tuple[int, ...]:
        """Channels that may enter a block (or, past the last block, the head)."""
        if block == 0:
            return (self.config.stem_width,)
        return tuple(dict.fromkeys(cell.width for cell in self.config.blocks[block - 1].cells))

    def size_into(self, block: int) -> tuple[int, int]:
        """Height and width of the features that enter a block (or, past the last block, the head)."""
        strides = [self.config.stem_stride, *(each.stride for each in self.config.blocks[:block])]
        factor = math.prod(strides)
        # Halving and rounding up several times equals one division rounded up.
        _, height, width = self.input_shape
        return -(-height // factor), -(-width // factor)
