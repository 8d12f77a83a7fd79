"""Spaces whose networks are a row of modules, one for each block."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from pipeline.spaces.base import Architecture, Block, Cost
from pipeline.spaces.cost import block_cost, block_outputs
from pipeline.spaces.decisions import DecisionSpace

if TYPE_CHECKING:
    from torch import nn


class ModuleSpace(DecisionSpace):
    """Base of spaces whose blocks ``layers.module_of`` can build; a subclass gives them."""

    @abstractmethod
    def blocks(self, architecture: Architecture) -> tuple[Block, ...]:
        """The blocks of an architecture, from input to output."""

    def build(self, architecture: Architecture) -> nn.Module:
        """``nn.Sequential`` of the modules of its blocks, in order; weights from torch's global generator."""
        from torch import nn

        return nn.Sequential(*map(self.build_block, self.blocks(architecture)))

    def build_block(self, block: Block) -> nn.Module:
        """A fresh module for one block; weights from torch's global generator.

        Raises:
            ValueError: a block of another space.
        """
        from pipeline.spaces.layers import module_of

        return module_of(block)

    def cost(self, block: Block) -> Cost:
        """Multiply-accumulates and parameters of a block.

        Raises:
            ValueError: a block of another space.
        """
        return block_cost(block)

    def outputs(self, block: Block) -> int:
        """How many values a block gives, with the error of ``cost``."""
        return block_outputs(block)
