"""Functions of a sample that look at few of its choices, as decision trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from pipeline.integrations.nni.units import Sample
from pipeline.spaces.base import Choice

V = TypeVar("V")
W = TypeVar("W")


@dataclass(frozen=True)
class Leaf(Generic[V]):
    """One value, whatever else is chosen."""

    value: V


@dataclass(frozen=True)
class Fork(Generic[V]):
    """A subtree for each choice of one label."""

    label: str
    branches: tuple[tuple[Choice, Tree[V]], ...]


Tree: TypeAlias = Leaf[V] | Fork[V]


def grow(
    labels: Sequence[str], choices: Mapping[str, Sequence[Choice]], table: Mapping[tuple[Choice, ...], V]
) -> Tree[V]:
    """The tree of a table that has a value for every combination of choices of ``labels``.

    It forks at the labels in their order, and only where it matters.
    """

    def subtree(chosen: tuple[Choice, ...]) -> Tree[V]:
        if len(chosen) == len(labels):
            return Leaf(table[chosen])
        label = labels[len(chosen)]
        return _fork(label, tuple((choice, subtree((*chosen, choice))) for choice in choices[label]))

    return subtree(())


def follow(tree: Tree[V], sample: Sample) -> V:
    """The value for a sample; only labels that matter are looked at.

    Raises:
        KeyError: the sample lacks a label that matters, or has none of its choices.
    """
    while isinstance(tree, Fork):
        tree = dict(tree.branches)[sample[tree.label]]
    return tree.value


def mapped(tree: Tree[V], function: Callable[[V], W]) -> Tree[W]:
    """The same tree with ``function`` of its values."""
    if isinstance(tree, Leaf):
        return Leaf(function(tree.value))
    return Fork(tree.label, tuple((choice, mapped(branch, function)) for choice, branch in tree.branches))


def grafted(tree: Tree[V], function: Callable[[V, Sample], Tree[W]]) -> Tree[W]:
    """The same tree with another tree for each leaf, which is told the choices that lead to it."""

    def graft(branch: Tree[V], chosen: Sample) -> Tree[W]:
        if isinstance(branch, Leaf):
            return function(branch.value, chosen)
        return _fork(
            branch.label,
            tuple(
                (choice, graft(each, {**chosen, branch.label: choice})) for choice, each in branch.branches
            ),
        )

    return graft(tree, {})


def _fork(label: str, branches: tuple[tuple[Choice, Tree[V]], ...]) -> Tree[V]:
    same = all(branch == branches[0][1] for _, branch in branches)
    return branches[0][1] if same else Fork(label, branches)
