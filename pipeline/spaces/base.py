"""Words of a search space: decisions, architectures, blocks, and the protocol a space satisfies."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from devices.digests import value_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

Choice = bool | int | float | str

KEPT = "kept"
"""Last part of the name of a decision whether there is anything of that name: where it is ``False``, nothing
below that name is to be decided, and architectures do not print it."""

_LONGEST = 160
"""Characters of an architecture in a line of text."""

Block_co = TypeVar("Block_co", bound=Hashable, covariant=True)


@dataclass(frozen=True)
class Condition:
    """That an earlier decision is to be made, and has one of these choices."""

    decision: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Decision:
    """One named decision and the choices it allows, in a fixed order.

    Attributes:
        name: unlike that of every other decision of the space.
        choices: at least one, none twice.
        condition: when the decision is to be made; always if None. Where it is not, an architecture has the
            first choice, so that equal networks are equal architectures.
    """

    name: str
    choices: tuple[Choice, ...]
    condition: Condition | None = None


@dataclass(frozen=True)
class Architecture:
    """One choice per decision, in the order of the space's decisions."""

    choices: tuple[tuple[str, Choice], ...]

    def __getitem__(self, decision: str) -> Choice:
        for name, choice in self.choices:
            if name == decision:
                return choice
        raise KeyError(decision)

    def with_choice(self, decision: str, choice: Choice) -> Architecture:
        """The same architecture with one decision changed.

        Raises:
            KeyError: no decision of that name.
        """
        if all(name != decision for name, _ in self.choices):
            raise KeyError(decision)
        return Architecture(tuple((name, choice if name == decision else old) for name, old in self.choices))

    @property
    def identity(self) -> str:
        """Digest of the choices."""
        return value_digest([list(pair) for pair in self.choices])

    @property
    def brief(self) -> str:
        """The beginning of the text, with the number of decisions where that is not all."""
        text = str(self)
        if len(text) <= _LONGEST:
            return text
        return f"{text[:_LONGEST].rpartition(' ')[0]} ... ({len(self.choices)} decisions)"

    def __str__(self) -> str:
        """Decisions by their common prefix: ``stage1(kernel=3 width=16) stage2(kernel=5 width=24)``.

        ``read_choices`` reads it back, without what lies in something that is gone (``KEPT``).
        """
        gone = tuple(
            name.removesuffix(KEPT)
            for name, choice in self.choices
            if name.endswith(f".{KEPT}") and choice is False
        )
        groups: dict[str, list[str]] = {}
        for name, choice in self.choices:
            if any(name.startswith(above) and name != f"{above}{KEPT}" for above in gone):
                continue
            prefix, _, last = name.rpartition(".")
            groups.setdefault(prefix, []).append(f"{last}={choice_text(choice)}")
        return " ".join(f"{p}({' '.join(c)})" if p else " ".join(c) for p, c in groups.items())


_QUOTED = r'"(?:\\.|[^"\\])*"'
_CHOICE = re.compile(rf"([^\s()=]+)=({_QUOTED}|[^\s()\"]+)")
_GROUP = re.compile(rf"\s*(?:([^\s()=]+)\(((?:[^()\"]|{_QUOTED})*)\)|({_CHOICE.pattern}))")


def choice_text(choice: Choice) -> str:
    """A choice as architectures print it: in quotes where it would not end at the next space."""
    text = str(choice)
    return text if re.fullmatch(r"[^\s()\"]+", text) else json.dumps(text)


def read_choices(text: str) -> dict[str, str]:
    """Decisions and the texts of their choices from the printed form of an architecture.

    Raises:
        ValueError: it is not of that form.
    """
    found: dict[str, str] = {}
    end = 0
    while text[end:].strip():
        part = _GROUP.match(text, end)
        if part is None:
            raise ValueError(f"{text[end:].strip()[:40]!r} is no choice such as kernel=3 or stage1(kernel=3)")
        end = part.end()
        prefix, inside, alone = part[1], part[2], part[3]
        for choice in _CHOICE.finditer(inside if alone is None else alone):
            found[f"{prefix}.{choice[1]}" if prefix else choice[1]] = choice[2]
    return found


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of convolutions and linear layers for one image, and trainable parameters."""

    macs: int
    parameters: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.parameters + other.parameters)


@dataclass(frozen=True)
class Block:
    """A piece of a network whose latency is measured by itself; equal blocks are equal values.

    Attributes:
        kind: what it is, e.g. ``stem``, ``mbconv``, ``head``.
        input_shape: channels, height, width (batch is 1).
        arguments: everything else that decides its graph, sorted by name.
    """

    kind: str
    input_shape: tuple[int, int, int]
    arguments: tuple[tuple[str, Choice], ...]

    @property
    def identity(self) -> str:
        """Digest of kind, input shape and arguments."""
        return value_digest([self.kind, list(self.input_shape), [list(pair) for pair in self.arguments]])

    def __str__(self) -> str:
        channels, height, width = self.input_shape
        arguments = " ".join(f"{name}={value}" for name, value in self.arguments)
        return f"{self.kind} {channels}x{height}x{width} {arguments}".rstrip()


@runtime_checkable
class SearchSpace(Protocol):
    """A set of architectures that can be drawn from and changed: all that a strategy needs.

    An outside class satisfies it without importing anything of ours, with architectures that have what
    ``Architecture`` has; ``tests/contracts/search_space.py`` holds the suite that it should pass.
    ``DecisionSpace`` derives everything from the decisions.
    """

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions, in a fixed order; one that depends on another stands after it."""
        ...

    def count(self) -> int:
        """Number of architectures."""
        ...

    def sample(self, generator: random.Random) -> Architecture:
        """Draw uniformly."""
        ...

    def mutate(self, architecture: Architecture, generator: random.Random) -> Architecture:
        """Change one decision to another of its choices (the same architecture if none has two)."""
        ...

    def crossover(
        self, architecture: Architecture, other: Architecture, generator: random.Random
    ) -> Architecture:
        """An architecture that has each of its choices from one of two."""
        ...

    def neighbours(self, architecture: Architecture) -> Iterable[Architecture]:
        """Every architecture that another choice in one decision makes, once."""
        ...

    def members(self) -> Iterable[Architecture]:
        """Every architecture, once, in a fixed order."""
        ...

    def encode(self, architecture: Architecture) -> NDArray[np.float32]:
        """Features of an architecture, shape (n_features,); different ones for different architectures."""
        ...


@runtime_checkable
class BlockSpace(SearchSpace, Protocol[Block_co]):
    """A search space of architectures that are made from blocks, whose costs add up.

    A block is any hashable value; in a space of networks it is a ``Block``.
    """

    def blocks(self, architecture: Architecture) -> Sequence[Block_co]:
        """The blocks whose latencies are measured, in the order they run; a block may stand several times."""
        ...

    def distinct_blocks(self) -> Sequence[Block_co]:
        """Every block that some architecture uses, once, in a fixed order."""
        ...

    def extreme(self, cost: Callable[[Block_co], float], *, largest: bool = False) -> Architecture:
        """The architecture with the smallest (or largest) total of ``cost`` over its blocks, exactly."""
        ...


@runtime_checkable
class Space(BlockSpace[Block], Protocol):
    """A space of networks: architectures that can be cut into blocks, and built.

    An outside class satisfies it without importing anything of ours; ``tests/contracts/space.py`` holds the
    suite that it should pass.
    """

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input."""
        ...

    @property
    def description(self) -> dict[str, object]:
        """Everything that decides what the space builds, as JSON: equal descriptions, equal spaces."""
        ...

    def reference(self) -> Architecture:
        """The network to which relative budgets refer."""
        ...

    def build(self, architecture: Architecture) -> nn.Module:
        """A fresh network, float32, ``(N, C, H, W)`` to logits ``(N, classes)``."""
        ...

    def build_block(self, block: Block) -> nn.Module:
        """A fresh module for one block; input ``(N, C, H, W)`` as in ``block.input_shape``."""
        ...


@runtime_checkable
class SizedSpace(Protocol):
    """A space that knows how large its blocks are; one that does not need not say so."""

    def cost(self, block: Block) -> Cost:
        """Multiply-accumulates and parameters of a block.

        Raises:
            ValueError: a block of another space.
        """
        ...

    def outputs(self, block: Block) -> int:
        """How many values a block gives for one image, with the error of ``cost``."""
        ...


def canonical(space: SearchSpace, architecture: Architecture) -> Architecture:
    """The same with the first choice in every decision that is not to be made."""
    made: dict[str, bool] = {}
    for decision in space.decisions:
        condition: Condition | None = getattr(decision, "condition", None)
        made[decision.name] = condition is None or (
            made[condition.decision] and architecture[condition.decision] in condition.choices
        )
        if not made[decision.name]:
            architecture = architecture.with_choice(decision.name, decision.choices[0])
    return architecture


def architecture_of(space: SearchSpace, choices: Iterable[Sequence[Choice]]) -> Architecture:
    """The space's architecture with these pairs of decision and choice, for example read from JSON.

    It is of the class that the space itself uses.

    Args:
        space: the space.
        choices: a pair for every decision.

    Raises:
        KeyError: the space has no decision of that name.
    """
    architecture = space.sample(random.Random(0))
    for name, choice in choices:
        architecture = architecture.with_choice(str(name), choice)
    return architecture


def check_architecture(space: SearchSpace, architecture: Architecture) -> None:
    """Refuse an architecture that is not of the space.

    Raises:
        ValueError: a decision is missing, unknown, out of order, has a choice that is not allowed, or
            is not to be made and has another than its first choice.
    """
    names: Sequence[str] = [decision.name for decision in space.decisions]
    if [name for name, _ in architecture.choices] != names:
        raise ValueError(f"architecture decides {[n for n, _ in architecture.choices]}, the space {names}")
    for decision in space.decisions:
        if architecture[decision.name] not in decision.choices:
            raise ValueError(
                f"{decision.name} = {architecture[decision.name]!r} is not in {decision.choices}"
            )
    if canonical(space, architecture) != architecture:
        raise ValueError("a decision that is not to be made has another than its first choice")
