"""The space of a teacher's subgraphs (2001.11612): how many channels of each layer, and which blocks, stay.

Decisions are ``layer1.0.kept`` for a residual block and ``layer1.0.conv1`` for the number of output channels
of a layer. Which channels these are, an architecture does not say: its latency does not depend on it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.spaces.base import KEPT, Architecture, Block, Choice, Condition, Cost, Decision
from pipeline.spaces.decisions import DecisionSpace
from pipeline.spaces.teacher.config import Shape, Structure, TeacherSpaceConfig, Unit, UnitSize

if TYPE_CHECKING:
    from torch import nn

_ADAPTED = "network."
"""Before the names of a network that was adapted to the data's images."""


@dataclass(frozen=True)
class TeacherSpace(DecisionSpace):
    """A ``Space``; to build something it needs the teacher itself, see ``methods.subgraph.units``."""

    config: TeacherSpaceConfig
    input_shape: Shape
    classes: int

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Of a block whether it is kept, of a layer how many channels, all of them first."""
        found = []
        for structure in self.config.structures:
            around = self.config.inside.get(structure.name)
            condition = None if around is None else Condition(self.decision[around], (True,))
            found.append(Decision(self.decision[structure.name], self._choices(structure), condition))
        return tuple(found)

    @functools.cached_property
    def decision(self) -> dict[str, str]:
        """Names of the decisions by those of the structures."""
        return {
            each.name: self.layer_name(each.name) + (f".{KEPT}" if each.kind == "block" else "")
            for each in self.config.structures
        }

    @property
    def description(self) -> dict[str, object]:
        """Contents of the units, structures and widths, input shape and classes."""
        return {
            "space": "teacher",
            "version": 1,
            "units": [
                [each.content, each.structures, each.narrowed, each.block] for each in self.config.units
            ],
            "widths": {name: list(widths) for name, widths in self.config.widths.items()},
            "input_shape": list(self.input_shape),
            "classes": self.classes,
        }

    def architecture(self, counts: Mapping[str, int]) -> Architecture:
        """The architecture in which so many parts of each structure stay; 0 or 1 of a block.

        Raises:
            ValueError: a number of channels is not among the widths.
        """
        choices: list[tuple[str, Choice]] = []
        for structure, decision in zip(self.config.structures, self.decisions, strict=True):
            count = counts[structure.name]
            choice: Choice = bool(count) if structure.kind == "block" else count
            if self._is_gone(structure.name, counts):
                choice = decision.choices[0]
            if choice not in decision.choices:
                raise ValueError(f"{count} is no width of {structure.name}: {decision.choices}")
            choices.append((decision.name, choice))
        return Architecture(tuple(choices))

    def counts(self, architecture: Architecture) -> dict[str, int]:
        """How many parts stay, by name of the structure; none of what lies in a block that is removed."""
        chosen = dict(architecture.choices)
        counts = {name: int(chosen[decision]) for name, decision in self.decision.items()}
        return {name: 0 if self._is_gone(name, counts) else count for name, count in counts.items()}

    def reference(self) -> Architecture:
        """The whole teacher."""
        return self.architecture({each.name: each.count for each in self.config.structures})

    def blocks(self, architecture: Architecture) -> tuple[Block, ...]:
        """The units of which something is left, from input to output."""
        counts = self.counts(architecture)
        return tuple(self.block(unit, counts) for unit in self.units_left(architecture))

    def units_left(self, architecture: Architecture) -> tuple[Unit, ...]:
        """The units of ``blocks``."""
        counts = self.counts(architecture)
        return tuple(unit for unit in self.config.units if unit.block is None or counts[unit.block])

    @staticmethod
    def layer_name(name: str) -> str:
        """The name of a layer or block in the user's own network, by that in the one that was adapted."""
        return name.removeprefix(_ADAPTED)

    def block(self, unit: Unit, counts: Mapping[str, int]) -> Block:
        """A unit with so many parts of each structure."""
        shape, channels = list(unit.input_shape), 2 if unit.tokens else 0
        arguments: list[tuple[str, Choice]] = [("content", unit.content)]
        for number, (name, narrowed) in enumerate(zip(unit.structures, unit.narrowed, strict=True)):
            shape[channels] -= narrowed * (self._count[name] - counts[name])
            arguments.append((f"parts{number}", counts[name]))
        return Block("unit", (shape[0], shape[1], shape[2]), tuple(arguments))

    def distinct_blocks(self) -> tuple[Block, ...]:
        """Every unit with every number of parts of its structures."""
        return tuple(self.places)

    @functools.cached_property
    def places(self) -> dict[Block, tuple[Unit, Mapping[str, int]]]:
        """For every distinct block one unit that is this block, and the parts of its structures."""
        found: dict[Block, tuple[Unit, Mapping[str, int]]] = {}
        for unit in self.config.units:
            for counts in self._combinations_of(unit):
                found.setdefault(self.block(unit, counts), (unit, counts))
        return found

    def cost(self, block: Block) -> Cost:
        """Multiply-accumulates and parameters of a block.

        Raises:
            ValueError: a block of another space.
        """
        return self._size(block).cost

    def outputs(self, block: Block) -> int:
        """How many values a block gives, with the error of ``cost``."""
        return self._size(block).outputs

    def extreme(self, cost: Callable[[Block], float], *, largest: bool = False) -> Architecture:
        """Exact, by elimination: units are added one by one, and of all ways to the same parts in structures
        that later units need the cheapest is kept.

        An infinite cost keeps its block out of the smallest architecture wherever another exists.
        """
        sign = -1.0 if largest else 1.0
        last = {name: index for index, unit in enumerate(self.config.units) for name in unit.structures}
        ways: dict[tuple[tuple[str, int], ...], tuple[float, dict[str, int]]] = {(): (0.0, {})}
        for index, unit in enumerate(self.config.units):
            reached: dict[tuple[tuple[str, int], ...], tuple[float, dict[str, int]]] = {}
            for open_counts, (before, chosen) in ways.items():
                for counts in self._ways_through(unit, dict(open_counts)):
                    gone = unit.block is not None and not counts[unit.block]
                    total = before + (0.0 if gone else sign * cost(self.block(unit, counts)))
                    everything = {**dict(open_counts), **counts}
                    still = tuple(sorted(item for item in everything.items() if last[item[0]] > index))
                    if still not in reached or total < reached[still][0]:
                        reached[still] = (total, {**chosen, **counts})
            ways = reached
        ((_, best),) = ways.values()
        return self.architecture(
            {each.name: best.get(each.name, each.count) for each in self.config.structures}
        )

    def build(self, architecture: Architecture) -> nn.Module:
        """Not without the teacher.

        Raises:
            LookupError: always.
        """
        raise LookupError("a subgraph is built from its teacher: open the space first (SpacePlan.open)")

    def build_block(self, block: Block) -> nn.Module:
        """Not without the teacher, as ``build``."""
        raise LookupError("a unit is built from its teacher: open the space first (SpacePlan.open)")

    def _choices(self, structure: Structure) -> tuple[Choice, ...]:
        if structure.kind == "block":
            return (True, False)
        return tuple(reversed(self.config.widths[structure.name]))

    def _size(self, block: Block) -> UnitSize:
        try:
            return self.config.sizes[block.identity]
        except KeyError:
            raise ValueError(f"the teacher has no unit {block}") from None

    def _is_gone(self, name: str, counts: Mapping[str, int]) -> bool:
        around = self.config.inside.get(name)
        return around is not None and not counts[around]

    @functools.cached_property
    def _count(self) -> dict[str, int]:
        return {each.name: each.count for each in self.config.structures}

    def _combinations_of(self, unit: Unit) -> Iterator[dict[str, int]]:
        """Every number of parts of the structures of a unit of which something is left."""
        yield from (
            counts for counts in self._ways_through(unit, {}) if unit.block is None or counts[unit.block]
        )

    def _ways_through(self, unit: Unit, fixed: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """Numbers of parts of a unit's structures: those of ``fixed``, and none in a block that is gone."""
        options = [
            (fixed[name],) if name in fixed else tuple(int(choice) for choice in self._choices_of[name])
            for name in unit.structures
        ]
        seen = set()
        for values in itertools.product(*options):
            counts = dict(zip(unit.structures, values, strict=True))
            counts = {
                name: 0 if self.config.inside.get(name) in counts and self._is_gone(name, counts) else count
                for name, count in counts.items()
            }
            if (key := tuple(counts.values())) not in seen:
                seen.add(key)
                yield counts

    @functools.cached_property
    def _choices_of(self) -> dict[str, tuple[Choice, ...]]:
        return {each.name: self._choices(each) for each in self.config.structures}
