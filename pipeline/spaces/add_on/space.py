"""The space of KDAS (1911.13019): a backbone that stays, and an operation beside each of its layers.

Of the n-th residual block B of the backbone, ``layerN.operation`` says what is added: nothing (``identity``)
or an operation A. ``layerN.source`` says whether A reads the block's output or its input, ``layerN.join``
whether it stands in series or is added: ``layers.wired`` has the four wirings. They are our choice, since the
paper's two binary choices for each add-on are not known; in all of them the backbone stays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pipeline.spaces.add_on.config import AddOnSpaceConfig
from pipeline.spaces.base import Architecture, Block, Choice, Condition, Decision
from pipeline.spaces.modules import ModuleSpace

if TYPE_CHECKING:
    from torch import nn

SOURCES = ("output", "input")
JOINS = ("series", "added")


class AddOnChoice(NamedTuple):
    """What is added to a layer: an operation, what it reads, and how it joins."""

    operation: str = "identity"
    source: str = SOURCES[0]
    join: str = JOINS[0]


NOTHING = AddOnChoice()


@dataclass(frozen=True)
class AddOnSpace(ModuleSpace):
    """Stem, residual blocks with what is added to them, classifier.

    Raises:
        ValueError: a size below 1.
    """

    config: AddOnSpaceConfig
    input_shape: tuple[int, int, int]
    classes: int

    def __post_init__(self) -> None:
        if min(*self.input_shape, self.classes) < 1:
            raise ValueError(
                f"input shape {self.input_shape} and {self.classes} classes must all be positive"
            )

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Operation, source and join of each layer; the last two are not made where nothing is added.

        What reads the input of a layer that changes the shape can only stand before it, in series.
        """
        found = []
        for number, block in enumerate(self.backbone, start=1):
            name = f"layer{number}"
            something = Condition(f"{name}.operation", self.config.operations)
            after = Condition(f"{name}.source", SOURCES if _keeps_shape(block) else ("output",))
            found += [
                Decision(f"{name}.operation", ("identity", *self.config.operations)),
                Decision(f"{name}.source", SOURCES, something),
                Decision(f"{name}.join", JOINS, after),
            ]
        return tuple(found)

    @property
    def description(self) -> dict[str, object]:
        """Config, input shape and classes."""
        return {
            "space": "add_on",
            "version": 1,
            "config": self.config.model_dump(mode="json"),
            "input_shape": list(self.input_shape),
            "classes": self.classes,
        }

    def reference(self) -> Architecture:
        """The bare backbone, the smallest and fastest member: a budget of 1.5x is half as much again."""
        return self.architecture([NOTHING] * len(self.backbone))

    def architecture(self, choices: Sequence[AddOnChoice]) -> Architecture:
        """The architecture with these choices, one for each layer."""
        pairs: list[tuple[str, Choice]] = []
        for number, choice in enumerate(choices, start=1):
            pairs += [(f"layer{number}.{field}", value) for field, value in choice._asdict().items()]
        return Architecture(tuple(pairs))

    def choices(self, architecture: Architecture) -> tuple[AddOnChoice, ...]:
        """What is added to each layer."""
        chosen = dict(architecture.choices)
        return tuple(
            AddOnChoice(*(str(chosen[f"layer{number}.{field}"]) for field in AddOnChoice._fields))
            for number in range(1, len(self.backbone) + 1)
        )

    def blocks(self, architecture: Architecture) -> tuple[Block, ...]:
        """Stem, every residual block with the operation that is added before or after it, classifier."""
        found = [self.stem()]
        for block, choice in zip(self.backbone, self.choices(architecture), strict=True):
            added = self.add_on(block, choice)
            before = choice.source == "input"
            found += [block] if added is None else [added, block] if before else [block, added]
        return (*found, self.classifier())

    def distinct_blocks(self) -> tuple[Block, ...]:
        """Stem, residual blocks, every add-on by layer, classifier."""
        found = dict.fromkeys((self.stem(), *self.backbone))
        for block in self.backbone:
            for choice in self.layer_choices(block):
                if (added := self.add_on(block, choice)) is not None:
                    found[added] = None
        return (*found, self.classifier())

    def extreme(self, cost: Callable[[Block], float], *, largest: bool = False) -> Architecture:
        """Exact: what is added to one layer changes nothing for the others; the first of equals wins."""

        def price(block: Block, choice: AddOnChoice) -> float:
            added = self.add_on(block, choice)
            here = 0.0 if added is None else cost(added)
            return -here if largest else here

        return self.architecture(
            [
                min(self.layer_choices(block), key=lambda choice, block=block: price(block, choice))  # type: ignore[misc]
                for block in self.backbone
            ]
        )

    def build(self, architecture: Architecture) -> nn.Module:
        """``nn.Sequential`` of stem, one module for each layer, classifier; torch's global generator."""
        from torch import nn

        from pipeline.spaces.add_on.layers import AddOn, AddOnLayer

        layers = []
        for block, choice in zip(self.backbone, self.choices(architecture), strict=True):
            module, added = self.build_block(block), self.add_on(block, choice)
            if added is not None:
                add_on = self.build_block(added)
                assert isinstance(add_on, AddOn)
                module = AddOnLayer(module, add_on, source=choice.source, join=choice.join)
            layers.append(module)
        return nn.Sequential(self.build_block(self.stem()), *layers, self.build_block(self.classifier()))

    def build_block(self, block: Block) -> nn.Module:
        """A fresh module for one block; weights from torch's global generator.

        Raises:
            ValueError: a block of another space.
        """
        from pipeline.spaces.add_on.layers import module_of

        return module_of(block)

    def layer_choices(self, block: Block) -> Iterator[AddOnChoice]:
        """Everything that may be added to a residual block, nothing first."""
        yield NOTHING
        for operation in self.config.operations:
            for source in SOURCES:
                for join in JOINS:
                    if source == "output" or join == "series" or _keeps_shape(block):
                        yield AddOnChoice(operation, source, join)

    def stem(self) -> Block:
        """The stem."""
        config = self.config
        arguments = (("out_channels", config.width), ("stride", config.stem_stride))
        return Block("stem", self.input_shape, arguments)

    @functools.cached_property
    def backbone(self) -> tuple[Block, ...]:
        """The residual blocks in order."""
        found, shape = [], _after(self.stem())
        for stage in range(self.config.stages):
            for place in range(self.config.depth):
                stride = 2 if stage and not place else 1
                arguments = (("out_channels", self.config.width << stage), ("stride", stride))
                found.append(Block("residual", shape, arguments))
                shape = _after(found[-1])
        return tuple(found)

    def add_on(self, block: Block, choice: AddOnChoice) -> Block | None:
        """What a choice adds to a residual block; ``None`` for nothing."""
        if choice.operation == NOTHING.operation:
            return None
        shape = block.input_shape if choice.source == "input" else _after(block)
        return Block("add_on", shape, (("join", choice.join), ("operation", choice.operation)))

    def classifier(self) -> Block:
        """The classifier."""
        return Block("classifier", _after(self.backbone[-1]), (("classes", self.classes),))


def _keeps_shape(block: Block) -> bool:
    return block.input_shape == _after(block)


def _after(block: Block) -> tuple[int, int, int]:
    arguments = dict(block.arguments)
    _, height, width = block.input_shape
    stride = int(arguments["stride"])
    return int(arguments["out_channels"]), -(-height // stride), -(-width // stride)
