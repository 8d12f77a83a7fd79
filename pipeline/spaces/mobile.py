"""The mobile space: inverted residuals with factorised decisions per stage (MnasNet, 1807.11626)."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pipeline.spaces.base import Architecture, Block, Choice, Decision
from pipeline.spaces.decisions import DecisionSpace
from pipeline.spaces.mobile_config import MobileSpaceConfig, StageConfig

if TYPE_CHECKING:
    from torch import nn


class StageChoice(NamedTuple):
    """One choice per decision of a stage, in the order of the stage's decisions."""

    kernel: int
    expansion: int
    depth: int
    width: int
    squeeze_excite: float


@dataclass(frozen=True)
class MobileSpace(DecisionSpace):
    """Stem, stages of inverted residuals, head.

    Decisions are named ``stage1.kernel``, ``stage1.expansion``, ``stage1.depth``, ``stage1.width``,
    ``stage1.squeeze_excite``, ``stage2.kernel``, and so on.
    """

    config: MobileSpaceConfig
    input_shape: tuple[int, int, int]
    classes: int

    @classmethod
    def from_config(
        cls, config: MobileSpaceConfig | None, input_shape: tuple[int, int, int], classes: int
    ) -> MobileSpace:
        """The space of ``config``, or of the defaults for the input's size.

        Args:
            config: choices; None takes ``MobileSpaceConfig.for_input``.
            input_shape: channels, height, width.
            classes: number of logits.

        Raises:
            ValueError: a size below 1.
        """
        if min(*input_shape, classes) < 1:
            raise ValueError(f"input shape {input_shape} and {classes} classes must all be positive")
        return cls(config or MobileSpaceConfig.for_input(input_shape), input_shape, classes)

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Five decisions per stage."""
        return tuple(
            Decision(f"stage{number}.{name}", choices)
            for number, stage in enumerate(self.config.stages, start=1)
            for name, choices in zip(StageChoice._fields, _choices(stage), strict=True)
        )

    @property
    def description(self) -> dict[str, object]:
        """Config, input shape and classes."""
        return {
            "space": "mobile",
            "version": 1,
            "config": self.config.model_dump(mode="json"),
            "input_shape": list(self.input_shape),
            "classes": self.classes,
        }

    def reference(self) -> Architecture:
        """Largest width, depth, expansion and squeeze-and-excite ratio everywhere; kernel 5 where offered."""
        return Architecture(
            tuple((decision.name, _reference_choice(decision)) for decision in self.decisions)
        )

    def blocks(self, architecture: Architecture) -> tuple[Block, ...]:
        """Stem, every inverted residual, head."""
        chosen = {decision.name: architecture[decision.name] for decision in self.decisions}
        values = list(chosen.values())
        fields = len(StageChoice._fields)
        blocks = [self._stem()]
        width = self.config.stem_width
        for index in range(len(self.config.stages)):
            stage_choice = StageChoice(*values[index * fields : (index + 1) * fields])  # type: ignore[arg-type]
            blocks += self._stage_blocks(index, width, stage_choice)
            width = stage_choice.width
        return (*blocks, self._head(width))

    def distinct_blocks(self) -> tuple[Block, ...]:
        """Stem, every inverted residual by stage, heads; without going through the architectures."""
        found = {self._stem(): None}
        for index, stage in enumerate(self.config.stages):
            for width, choice in itertools.product(self._widths_into(index), _stage_choices(stage)):
                found |= dict.fromkeys(self._stage_blocks(index, width, choice))
        heads = map(self._head, self._widths_into(len(self.config.stages)))
        return tuple(found | dict.fromkeys(heads))

    def extreme(self, cost: Callable[[Block], float], *, largest: bool = False) -> Architecture:
        """Exact, by dynamic programming over the stages; the state is the width that enters a stage.

        An infinite cost keeps its block out of the smallest architecture wherever another exists, as does a
        negative infinite one out of the largest; the first of equals wins.
        """
        price = functools.cache(lambda block: -cost(block) if largest else cost(block))
        # Per width that enters the next stage: cheapest total so far and the choices that lead there.
        best: dict[int, tuple[float, tuple[Choice, ...]]] = {
            self.config.stem_width: (price(self._stem()), ())
        }
        for index, stage in enumerate(self.config.stages):
            reached: dict[int, tuple[float, tuple[Choice, ...]]] = {}
            for (width, (total, path)), choice in itertools.product(best.items(), _stage_choices(stage)):
                cost_here = total + sum(map(price, self._stage_blocks(index, width, choice)))
                if choice.width not in reached or cost_here < reached[choice.width][0]:
                    reached[choice.width] = (cost_here, path + choice)
            best = reached
        totals = {width: total + price(self._head(width)) for width, (total, _) in best.items()}
        _, path = best[min(totals, key=totals.__getitem__)]
        return Architecture(tuple((d.name, choice) for d, choice in zip(self.decisions, path, strict=True)))

    def build(self, architecture: Architecture) -> nn.Module:
        """``nn.Sequential`` of the modules of its blocks, in order; weights from torch's global generator."""
        from torch import nn

        return nn.Sequential(*map(self.build_block, self.blocks(architecture)))

    def build_block(self, block: Block) -> nn.Module:
        """A fresh module for one block; weights from torch's global generator.

        Raises:
            ValueError: a block of another space.
        """
        from pipeline.spaces import layers

        channels = block.input_shape[0]
        arguments = dict(block.arguments)
        module: nn.Module
        match block.kind:
            case "stem":
                module = layers.ConvBNReLU(channels, kernel=3, **arguments)  # type: ignore[arg-type]
            case "mbconv":
                module = layers.InvertedResidual(channels, **arguments)  # type: ignore[arg-type]
            case "head":
                module = layers.Head(channels, **arguments)  # type: ignore[arg-type]
            case _:
                raise ValueError(f"the mobile space has no block of kind {block.kind!r}")
        layers.initialise(module)
        return module

    def _stem(self) -> Block:
        return Block(
            "stem",
            self.input_shape,
            (("out_channels", self.config.stem_width), ("stride", self.config.stem_stride)),
        )

    def _head(self, width: int) -> Block:
        arguments = (("classes", self.classes), ("width", self.config.head_width))
        return Block("head", (width, *self._size_into(len(self.config.stages))), arguments)

    def _stage_blocks(self, index: int, width: int, choice: StageChoice) -> Iterator[Block]:
        stride = self.config.stages[index].stride
        yield _mbconv((width, *self._size_into(index)), stride, choice)
        for _ in range(choice.depth - 1):
            yield _mbconv((choice.width, *self._size_into(index + 1)), 1, choice)

    def _widths_into(self, index: int) -> tuple[int, ...]:
        return self.config.stages[index - 1].widths if index else (self.config.stem_width,)

    def _size_into(self, index: int) -> tuple[int, int]:
        """Height and width of the features that enter a stage (or, past the last stage, the head)."""
        strides = [self.config.stem_stride, *(stage.stride for stage in self.config.stages[:index])]
        factor = math.prod(strides)
        # Halving and rounding up several times equals one division rounded up.
        _, height, width = self.input_shape
        return -(-height // factor), -(-width // factor)


def _choices(stage: StageConfig) -> tuple[tuple[Choice, ...], ...]:
    return (stage.kernels, stage.expansions, stage.depths, stage.widths, stage.squeeze_excite)


def _stage_choices(stage: StageConfig) -> Iterator[StageChoice]:
    return itertools.starmap(StageChoice, itertools.product(*_choices(stage)))


def _reference_choice(decision: Decision) -> Choice:
    if decision.name.endswith(".kernel") and 5 in decision.choices:
        return 5
    return max(decision.choices)


def _mbconv(input_shape: tuple[int, int, int], stride: int, choice: StageChoice) -> Block:
    arguments = (
        ("expansion", choice.expansion),
        ("kernel", choice.kernel),
        ("out_channels", choice.width),
        ("squeeze_excite", choice.squeeze_excite),
        ("stride", stride),
    )
    return Block("mbconv", input_shape, arguments)
