"""The mobile space: layers of one kind per stage, with factorised decisions (MnasNet, 1807.11626)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.spaces.base import Architecture, Block, Choice, Decision, canonical
from pipeline.spaces.mobile.akd import akd_plan
from pipeline.spaces.mobile.config import MobileSpaceConfig, SpaceConfig
from pipeline.spaces.mobile.decisions import MobileStage, StageChoice
from pipeline.spaces.modules import ModuleSpace


@dataclass(frozen=True)
class MobileSpace(ModuleSpace):
    """Stem, stages of layers, head.

    Decisions are named ``stage1.kernel``, ``stage1.expansion``, ``stage1.depth``, ``stage1.width``,
    ``stage1.squeeze_excite``, ``stage2.kernel``, and so on. Where a stage offers a choice of them,
    ``stage1.operation`` is the first, on which the expansion depends, and ``stage1.skip`` the last.
    """

    config: MobileSpaceConfig
    input_shape: tuple[int, int, int]
    classes: int

    @classmethod
    def from_config(
        cls, config: MobileSpaceConfig | SpaceConfig | None, input_shape: tuple[int, int, int], classes: int
    ) -> MobileSpace:
        """The space of ``config``, or of the defaults for the input's size.

        Args:
            config: choices, or a recipe's table with choices or a preset; None takes the preset ``mobile``.
            input_shape: channels, height, width.
            classes: number of logits.

        Raises:
            ValueError: a size below 1.
        """
        if min(*input_shape, classes) < 1:
            raise ValueError(f"input shape {input_shape} and {classes} classes must all be positive")
        if not isinstance(config, MobileSpaceConfig):
            config = _planned(config or SpaceConfig(preset="mobile"), input_shape)
        return cls(config, input_shape, classes)

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Five decisions per stage; up to seven where operation and skip are among them."""
        return tuple(decision for stage in self._stages for decision in stage.decisions.values())

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
        """Largest width, depth, expansion and squeeze-and-excite ratio everywhere; kernel 5 where offered.

        Inverted bottlenecks with identity skips where they are offered, else the first operation and skip.
        """
        return canonical(
            self, Architecture(tuple((each.name, _reference_choice(each)) for each in self.decisions))
        )

    def blocks(self, architecture: Architecture) -> tuple[Block, ...]:
        """Stem, every layer, head."""
        chosen = dict(architecture.choices)
        blocks = [self._stem()]
        width = self.config.stem_width
        for stage in self._stages:
            choice = stage.choice(chosen)
            blocks += stage.blocks(width, choice)
            width = choice.width
        return (*blocks, self._head(width))

    def distinct_blocks(self) -> tuple[Block, ...]:
        """Stem, every layer by stage, heads; without going through the architectures."""
        return tuple(self._numbers)

    def extreme(self, cost: Callable[[Block], float], *, largest: bool = False) -> Architecture:
        """Exact, by dynamic programming over the stages; the state is the width that enters a stage.

        An infinite cost keeps its block out of the smallest architecture wherever another exists, as does a
        negative infinite one out of the largest; the first of equals wins.
        """
        prices = [-cost(block) if largest else cost(block) for block in self._numbers]
        stem = prices[self._numbers[self._stem()]]
        # Per width that enters the next stage: cheapest total so far and the choices that lead there.
        best: dict[int, tuple[float, tuple[StageChoice, ...]]] = {self.config.stem_width: (stem, ())}
        for routes in self._routes:
            reached: dict[int, tuple[float, tuple[StageChoice, ...]]] = {}
            for width, (total, path) in best.items():
                for choice, numbers in routes[width]:
                    cost_here = total + sum([prices[number] for number in numbers])
                    if choice.width not in reached or cost_here < reached[choice.width][0]:
                        reached[choice.width] = (cost_here, (*path, choice))
            best = reached
        totals = {
            width: total + prices[self._numbers[self._head(width)]] for width, (total, _) in best.items()
        }
        _, path = best[min(totals, key=totals.__getitem__)]
        return Architecture(
            tuple(
                (decision.name, getattr(choice, field))
                for stage, choice in zip(self._stages, path, strict=True)
                for field, decision in stage.decisions.items()
            )
        )

    @functools.cached_property
    def _stages(self) -> tuple[MobileStage, ...]:
        stages = self.config.stages
        widths_in = ((self.config.stem_width,), *(stage.widths for stage in stages))
        return tuple(
            MobileStage(
                f"stage{index + 1}",
                stage,
                widths_in[index],
                self._size_into(index),
                self._size_into(index + 1),
            )
            for index, stage in enumerate(stages)
        )

    @functools.cached_property
    def _numbers(self) -> dict[Block, int]:
        """Every distinct block with its number, in order."""
        blocks = dict.fromkeys([self._stem()])
        for stage in self._stages:
            for width in stage.widths_in:
                for choice in stage.choices():
                    blocks |= dict.fromkeys(stage.blocks(width, choice))
        blocks |= dict.fromkeys(map(self._head, self.config.stages[-1].widths))
        return {block: number for number, block in enumerate(blocks)}

    @functools.cached_property
    def _routes(self) -> tuple[dict[int, list[tuple[StageChoice, tuple[int, ...]]]], ...]:
        """Through every stage, by the width that enters it: choices, and the numbers of their blocks."""
        return tuple(
            {
                width: [
                    (choice, tuple(self._numbers[block] for block in stage.blocks(width, choice)))
                    for choice in stage.choices()
                ]
                for width in stage.widths_in
            }
            for stage in self._stages
        )

    def _stem(self) -> Block:
        return Block(
            "stem",
            self.input_shape,
            (("out_channels", self.config.stem_width), ("stride", self.config.stem_stride)),
        )

    def _head(self, width: int) -> Block:
        arguments = (("classes", self.classes), ("width", self.config.head_width))
        return Block("head", (width, *self._size_into(len(self.config.stages))), arguments)

    def _size_into(self, index: int) -> tuple[int, int]:
        """Height and width of the features that enter a stage (or, past the last stage, the head)."""
        strides = [self.config.stem_stride, *(stage.stride for stage in self.config.stages[:index])]
        factor = math.prod(strides)
        # Halving and rounding up several times equals one division rounded up.
        _, height, width = self.input_shape
        return -(-height // factor), -(-width // factor)


def _planned(config: SpaceConfig, input_shape: tuple[int, int, int]) -> MobileSpaceConfig:
    match config.preset:
        case "akd":
            return akd_plan(input_shape)
        case "mobile":
            return MobileSpaceConfig.for_input(input_shape)
        case None:
            return MobileSpaceConfig.model_validate(
                {name: value for name, value in config if name != "preset"}
            )


def _reference_choice(decision: Decision) -> Choice:
    usual = {"kernel": 5, "operation": "inverted", "skip": "identity"}.get(decision.name.rpartition(".")[2])
    if usual in decision.choices:
        return usual
    if isinstance(decision.choices[0], str):
        return decision.choices[0]
    return max(decision.choices)
