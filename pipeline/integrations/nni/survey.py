"""Which choices shape the input of each unit, found out by looking at networks.

The mutables above a unit decide whether it is there. Which others shape its input is not known: that is in
the author's ``forward``. So networks are looked at until every combination of the labels that are known to
decide about a unit was seen. Where two networks agree in these labels and still differ at the unit, another
label decides too; it is found by changing one network into the other, by halves of the labels that differ. In
the end, random networks have to be as the tables say.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from pipeline.integrations.nni.errors import NniError
from pipeline.integrations.nni.trees import Tree, grow
from pipeline.integrations.nni.units import Sample, Unit
from pipeline.spaces.base import Choice

LARGEST = 2000
"""Combinations of choices that may shape the input of one unit: each is looked at in a network."""

CHECKS = 32
"""Random networks that have to agree with what was found."""

V = TypeVar("V")
Combination = tuple[Choice, ...]


def survey(
    units: Sequence[Unit],
    choices: Mapping[str, Sequence[Choice]],
    look: Callable[[Sample], Sequence[V]],
    on_progress: Callable[[int, int], None],
) -> list[Tree[V]]:
    """For each unit, what is seen there as a function of the sample.

    Args:
        units: with the labels that are known to decide about them.
        choices: of every label of the space.
        look: what is seen at each unit in the network of a sample.
        on_progress: called with the number of networks looked at, and what it will be as far as is known.

    Raises:
        NniError: too many combinations decide about one unit.
    """
    found = _Survey(units, choices, look, on_progress)
    decided: list[list[str]] = []
    while decided != found.labels:
        found.complete()
        decided = [list(labels) for labels in found.labels]
        found.check()
    return [grow(labels, choices, table) for labels, table in zip(found.labels, found.tables(), strict=True)]


class _Survey(Generic[V]):
    def __init__(
        self,
        units: Sequence[Unit],
        choices: Mapping[str, Sequence[Choice]],
        look: Callable[[Sample], Sequence[V]],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.labels = [list(dict.fromkeys(unit.above)) for unit in units]
        self._units = units
        self._choices = choices
        self._look = look
        self._on_progress = on_progress
        self._generator = random.Random(0)
        self._looked: dict[Combination, tuple[Sample, Sequence[V]]] = {}
        self._tables: list[dict[Combination, tuple[Sample, V]]] = [{} for _ in units]

    def tables(self) -> Iterator[dict[Combination, V]]:
        for table in self._tables:
            yield {combination: value for combination, (_, value) in table.items()}

    def complete(self) -> None:
        """Look at networks until each table is full."""
        while any(missing := [self._missing(unit) for unit in range(len(self._units))]):
            self._on_progress(len(self._looked), len(self._looked) + max(map(len, missing)) + CHECKS)
            self._visit(self._sample_with(missing))

    def check(self) -> None:
        """Look at random networks."""
        before = len(self._looked)
        for _ in range(CHECKS):
            self._visit({label: self._generator.choice(values) for label, values in self._choices.items()})
            self._on_progress(len(self._looked), max(len(self._looked), before + CHECKS))

    def _missing(self, unit: int) -> list[Combination]:
        values = [self._choices[label] for label in self.labels[unit]]
        combinations = math.prod(map(len, values))
        if combinations > LARGEST:
            raise NniError(
                f"too many choices shape the input of '{self._units[unit]}'",
                why=f"{combinations} combinations of {', '.join(self.labels[unit])}, more than {LARGEST}",
                fix="give these mutables fewer choices, or let fewer of them change the shape of its input",
            )
        return [each for each in itertools.product(*values) if each not in self._tables[unit]]

    def _sample_with(self, missing: Sequence[Sequence[Combination]]) -> Sample:
        """A sample with as many missing combinations as fit together, and random besides."""
        sample: dict[str, Choice] = {}
        for labels, combinations in zip(self.labels, missing, strict=True):
            for combination in combinations:
                wanted = dict(zip(labels, combination, strict=True))
                if all(sample.get(label, choice) == choice for label, choice in wanted.items()):
                    sample |= wanted
                    break
        return {
            label: sample[label] if label in sample else self._generator.choice(values)
            for label, values in self._choices.items()
        }

    def _visit(self, sample: Sample) -> None:
        seen = self._seen(sample)
        for unit, value in enumerate(seen):
            witness, known = self._entry(unit, sample, value)
            if known != value:
                self.labels[unit].append(self._cause(unit, witness, sample))
                self._refile(unit)

    def _seen(self, sample: Sample) -> Sequence[V]:
        key = tuple(sample.values())
        if key not in self._looked:
            self._looked[key] = (sample, self._look(sample))
        return self._looked[key][1]

    def _entry(self, unit: int, sample: Sample, value: V) -> tuple[Sample, V]:
        combination = tuple(sample[label] for label in self.labels[unit])
        return self._tables[unit].setdefault(combination, (sample, value))

    def _refile(self, unit: int) -> None:
        """Fill a table anew, after a label was found to decide too; which may show that others do."""
        self._tables[unit] = {}
        for sample, values in list(self._looked.values()):
            witness, known = self._entry(unit, sample, values[unit])
            if known != values[unit]:
                self.labels[unit].append(self._cause(unit, witness, sample))
                return self._refile(unit)

    def _cause(self, unit: int, one: Sample, other: Sample) -> str:
        """A label in which the samples differ, and by which the unit differs."""
        differing = [label for label in self._choices if one[label] != other[label]]
        before = self._seen(one)[unit]
        same, different = 0, len(differing)  # labels taken over from the other
        while different - same > 1:
            middle = (same + different) // 2
            mixed = {**one, **{label: other[label] for label in differing[:middle]}}
            if self._seen(mixed)[unit] == before:
                same = middle
            else:
                different = middle
        return differing[same]
