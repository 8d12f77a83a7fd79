"""Words of a search space: decisions, architectures, blocks, and the protocol a space satisfies."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from devices.digests import value_digest

if TYPE_CHECKING:
    from torch import nn

Choice = bool | int | float | str


@dataclass(frozen=True)
class Decision:
    """One named decision and the choices it allows, in a fixed order."""

    name: str
    choices: tuple[Choice, ...]


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

    def __str__(self) -> str:
        """Decisions by their common prefix: ``stage1(kernel=3 width=16) stage2(kernel=5 width=24)``."""
        groups: dict[str, list[str]] = {}
        for name, choice in self.choices:
            prefix, _, last = name.rpartition(".")
            groups.setdefault(prefix, []).append(f"{last}={choice}")
        return " ".join(f"{p}({' '.join(c)})" if p else " ".join(c) for p, c in groups.items())


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
class Space(Protocol):
    """A set of architectures that can be drawn from, cut into blocks, and built.

    An outside class satisfies it without importing anything of ours; ``tests/contracts/space.py`` holds the
    suite that it should pass.
    """

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions, in a fixed order."""
        ...

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input."""
        ...

    @property
    def description(self) -> dict[str, object]:
        """Everything that decides what the space builds, as JSON: equal descriptions, equal spaces."""
        ...

    def count(self) -> int:
        """Number of architectures."""
        ...

    def reference(self) -> Architecture:
        """The network to which relative budgets refer."""
        ...

    def sample(self, generator: random.Random) -> Architecture:
        """Draw uniformly."""
        ...

    def mutate(self, architecture: Architecture, generator: random.Random) -> Architecture:
        """Change one decision to another of its choices (the same architecture if none has two)."""
        ...

    def blocks(self, architecture: Architecture) -> tuple[Block, ...]:
        """The blocks whose latencies are measured, in the order they run; a block may stand several times."""
        ...

    def distinct_blocks(self) -> tuple[Block, ...]:
        """Every block that some architecture uses, once, in a fixed order."""
        ...

    def extreme(self, cost: Callable[[Block], float], *, largest: bool = False) -> Architecture:
        """The architecture with the smallest (or largest) total of ``cost`` over its blocks, exactly."""
        ...

    def build(self, architecture: Architecture) -> nn.Module:
        """A fresh network, float32, ``(N, C, H, W)`` to logits ``(N, classes)``."""
        ...

    def build_block(self, block: Block) -> nn.Module:
        """A fresh module for one block; input ``(N, C, H, W)`` as in ``block.input_shape``."""
        ...


def architecture_of(space: Space, choices: Iterable[Sequence[Choice]]) -> Architecture:
    """The space's architecture with these pairs of decision and choice, for example read from JSON.

    It is of the class that the space itself uses, and decisions that are not among the pairs are the
    reference's.

    Raises:
        KeyError: the space has no decision of that name.
    """
    architecture = space.reference()
    for name, choice in choices:
        architecture = architecture.with_choice(str(name), choice)
    return architecture


def check_architecture(space: Space, architecture: Architecture) -> None:
    """Refuse an architecture that is not of the space.

    Raises:
        ValueError: a decision is missing, unknown, out of order, or has a choice that is not allowed.
    """
    names: Sequence[str] = [decision.name for decision in space.decisions]
    if [name for name, _ in architecture.choices] != names:
        raise ValueError(f"architecture decides {[n for n, _ in architecture.choices]}, the space {names}")
    for decision in space.decisions:
        if architecture[decision.name] not in decision.choices:
            raise ValueError(
                f"{decision.name} = {architecture[decision.name]!r} is not in {decision.choices}"
            )
