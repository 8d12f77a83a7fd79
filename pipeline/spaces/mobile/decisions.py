"""One stage of the mobile space: its decisions, what they may be together, and the blocks they make."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.spaces.base import Block, Choice, Condition, Decision
from pipeline.spaces.mobile.config import Operation, Skip, StageConfig

POOL_KERNEL = 3
"""Size of the averages in a skip path that pools."""


class StageChoice(NamedTuple):
    """What all layers of a stage share, in the order of its decisions."""

    operation: Operation
    kernel: int
    expansion: int
    depth: int
    width: int
    squeeze_excite: float
    skip: Skip


@dataclass(frozen=True)
class MobileStage:
    """A stage at its place in a network.

    Attributes:
        name: prefix of its decisions.
        config: its choices.
        widths_in: channels that may enter it.
        size_in: height and width of what enters it.
        size_out: of what leaves it.
    """

    name: str
    config: StageConfig
    widths_in: tuple[int, ...]
    size_in: tuple[int, int]
    size_out: tuple[int, int]

    @functools.cached_property
    def decisions(self) -> dict[str, Decision]:
        """By field of ``StageChoice``; there is none of an operation or a skip that leaves no choice."""
        config, conditions = self.config, self._conditions
        choices: dict[str, tuple[Choice, ...]] = {"operation": config.operations} if self._mixed else {}
        choices["kernel"] = config.kernels
        if "inverted" in config.operations:
            choices["expansion"] = config.expansions
        choices |= {"depth": config.depths, "width": config.widths, "squeeze_excite": config.squeeze_excite}
        if len(config.skips) > 1 and (self._first_may_skip or self._deep):
            choices["skip"] = config.skips
        return {
            field: Decision(f"{self.name}.{field}", values, conditions.get(field))
            for field, values in choices.items()
        }

    def choice(self, chosen: Mapping[str, Choice]) -> StageChoice:
        """The stage's part of an architecture, given by names of decisions."""
        made = {field: chosen[decision.name] for field, decision in self.decisions.items()}
        return self._first_choice._replace(**made)  # type: ignore[arg-type]

    def choices(self) -> Iterator[StageChoice]:
        """Every choice, with the first one in what is not to be decided."""
        config, usual = self.config, self._first_choice
        skips = config.skips if "skip" in self.decisions else config.skips[:1]
        for values in itertools.product(
            config.operations,
            config.kernels,
            config.expansions,
            config.depths,
            config.widths,
            config.squeeze_excite,
            skips,
        ):
            choice = StageChoice(*values)
            expands = choice.operation == "inverted" or choice.expansion == usual.expansion
            if expands and (choice.skip == usual.skip or self._first_may_skip or choice.depth > 1):
                yield choice

    def blocks(self, width: int, choice: StageChoice) -> Iterator[Block]:
        """One block per layer, the first of which has ``width`` input channels and the stride."""
        yield _block((width, *self.size_in), self.config.stride, choice)
        for _ in range(choice.depth - 1):
            yield _block((choice.width, *self.size_out), 1, choice)

    @property
    def _mixed(self) -> bool:
        return len(self.config.operations) > 1

    @property
    def _deep(self) -> tuple[int, ...]:
        return tuple(depth for depth in self.config.depths if depth > 1)

    @property
    def _first_may_skip(self) -> bool:
        """Whether the first layer may keep its shape, as all others do."""
        return self.config.stride == 1 and not set(self.widths_in).isdisjoint(self.config.widths)

    @property
    def _conditions(self) -> dict[str, Condition]:
        conditions = {}
        if self._mixed:
            conditions["expansion"] = Condition(f"{self.name}.operation", ("inverted",))
        if not self._first_may_skip and len(self._deep) < len(self.config.depths):
            conditions["skip"] = Condition(f"{self.name}.depth", self._deep)
        return conditions

    @functools.cached_property
    def _first_choice(self) -> StageChoice:
        config = self.config
        return StageChoice(
            config.operations[0],
            config.kernels[0],
            config.expansions[0],
            config.depths[0],
            config.widths[0],
            config.squeeze_excite[0],
            config.skips[0],
        )


def _block(input_shape: tuple[int, int, int], stride: int, choice: StageChoice) -> Block:
    arguments: dict[str, Choice] = {
        "kernel": choice.kernel,
        "out_channels": choice.width,
        "squeeze_excite": choice.squeeze_excite,
        "stride": stride,
    }
    if choice.operation != "regular":
        arguments["expansion"] = choice.expansion if choice.operation == "inverted" else 1
    keeps_shape = stride == 1 and input_shape[0] == choice.width
    # Where there is no skip path, all skips are one block.
    if keeps_shape and choice.skip == "pool":
        arguments["pool"] = POOL_KERNEL
    if keeps_shape and choice.skip == "none":
        arguments["residual"] = False
    kind = "regular" if choice.operation == "regular" else "mbconv"
    return Block(kind, input_shape, tuple(sorted(arguments.items())))
