"""A teacher's subgraphs as values: what can be removed from it, and the units that are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.spaces.base import Cost

Shape = tuple[int, int, int]
Kind = Literal["channels", "groups", "heads", "block"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Structure:
    """Parts of a network that are removed together or one by one.

    Attributes:
        name: of the layer whose output channels they are, of the attention, or of the residual block.
        kind: channels, groups of channels or heads that are removed one by one, or a whole block. Groups are
            those of a convolution or a norm that has some.
        count: how many parts: channels, groups, heads, or 1 for a block.
        gated: layers whose outputs carry the gate; silencing these silences the structure.
    """

    name: str
    kind: Kind
    count: int
    gated: tuple[str, ...]


@dataclass(frozen=True)
class Unit:
    """A piece of the network between two values from which alone the rest is computed.

    Attributes:
        name: of its first layer.
        content: digest of its graph; equal units of one network have equal contents.
        input_shape: channels, height, width of its input in the whole teacher; of L tokens with C channels
            ``(1, L, C)``.
        structures: names of the structures that change it, in the order of the content.
        narrowed: by how many channels its input shrinks for each part of them that is removed.
        block: the structure whose removal leaves nothing of it.
        tokens: whether its input are tokens.
    """

    name: str
    content: str
    input_shape: Shape
    structures: tuple[str, ...]
    narrowed: tuple[int, ...]
    block: str | None = None
    tokens: bool = False


@dataclass(frozen=True)
class UnitSize:
    """Cost of a block, and how many values it gives."""

    cost: Cost
    outputs: int


@dataclass(frozen=True)
class TeacherSpaceConfig:
    """All that decides the architectures and blocks of a teacher's space, but not its weights.

    Attributes:
        structures: what can be removed, a block before what can be removed inside it.
        widths: how many parts may stay of each structure but blocks, ascending, the last one all.
        inside: the block in which a structure of parts lies, if it lies in one.
        units: from input to output.
        sizes: of every distinct block, by its identity.
    """

    structures: tuple[Structure, ...]
    widths: Mapping[str, tuple[int, ...]]
    inside: Mapping[str, str]
    units: tuple[Unit, ...]
    sizes: Mapping[str, UnitSize]
