"""Latency budgets on a space: who is within them, who is nearest, and how to draw from within."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from latency_db.estimate import Estimate
from pipeline.errors import BudgetError
from pipeline.search.base import LatencyModel
from pipeline.search.budgets.extremes import find_extremes
from pipeline.search.budgets.feasibility import Feasibility, TargetRange
from pipeline.spaces.base import Architecture, SearchSpace, canonical

_BATCH = 4096
_DRAWS = 10
_NEAR = 0.95


class Constraints:
    """A latency limit on each of one or several targets.

    An architecture is within the budgets if the upper end of its estimate is, on every target, and if
    ``allows`` says so. What is beyond is changed towards the anchor, the member that is nearest to the
    limits; so ``allows`` must be a condition that the anchor meets.

    Args:
        space: what is searched.
        models: latency model per target; targets without a limit are left out of account.
        limits_ns: latency limit per target.
        allows: another condition, such as a limit on parameters.

    Raises:
        ValueError: there is no limit, one is not finite and above zero, or one has no model.
    """

    def __init__(
        self,
        space: SearchSpace,
        models: Mapping[str, LatencyModel],
        limits_ns: Mapping[str, float],
        *,
        allows: Callable[[Architecture], bool] = lambda architecture: True,
    ) -> None:
        if not limits_ns:
            raise ValueError("a search needs a limit on at least one target")
        for target, limit in limits_ns.items():
            if target not in models:
                raise ValueError(f"the limit on {target} has no latency model")
            if not 0 < limit < math.inf:
                raise ValueError(f"the limit of {limit} ns on {target} is not finite and above zero")
        self.space, self._allows = space, allows
        self.limits_ns = dict(limits_ns)
        self.models = {target: models[target] for target in limits_ns}

    def estimates(self, architecture: Architecture) -> dict[str, Estimate]:
        """The architecture's latency per target."""
        return {target: model.estimate([architecture])[0] for target, model in self.models.items()}

    def feasible(self, architecture: Architecture) -> bool:
        """Whether the upper end of the estimate is within every limit, and nothing else speaks against it."""
        return self._allows(architecture) and all(
            model.estimate([architecture])[0].high_ns / self.limits_ns[target] <= 1
            for target, model in self.models.items()
        )

    def ratios(self, architecture: Architecture) -> list[float]:
        """The upper end of the estimate divided by the limit, per target."""
        estimates = self.estimates(architecture)
        return [estimates[target].high_ns / limit for target, limit in self.limits_ns.items()]

    def use(self, architecture: Architecture) -> float:
        """The largest of ``ratios``: how much of the limits is used, 1 at the first of them."""
        return max(self.ratios(architecture))

    @cached_property
    def certificate(self) -> Feasibility:
        """What the space can reach; computed once.

        Raises:
            BudgetError: no member that was found runs on all targets, because of blocks that failed there.
        """
        found = find_extremes(self.space, self.models, self.limits_ns)
        if found is None:
            raise BudgetError(
                f"No network of the space runs on all of {', '.join(self.models)}",
                why="every network has a block that could not be exported or run on one of them",
                fix="see the table for the reasons of the failed blocks, or change the space's choices",
            )
        ranges = tuple(
            TargetRange(
                target,
                self.limits_ns[target],
                found.fastest[target],
                model.estimate([found.fastest[target]])[0],
                found.slowest[target],
                model.estimate([found.slowest[target]])[0],
            )
            for target, model in self.models.items()
        )
        ratio = self.use(found.anchor)
        estimates = tuple(self.estimates(found.anchor).values())
        return Feasibility(ranges, found.anchor, estimates, ratio, found.least_ratio, found.exact)

    def draw(self, generator: random.Random) -> Architecture:
        """Draw uniformly from the members within the budgets; after ``_DRAWS`` draws from beyond, ``repair``.

        Raises:
            BudgetError: no member is known to keep the budgets.
        """
        self.certificate.require_reachable()
        for _ in range(_DRAWS):
            drawn = self.space.sample(generator)
            if self.feasible(drawn):
                return drawn
        return self.repair(drawn, generator)

    def repair(self, architecture: Architecture, generator: random.Random) -> Architecture:
        """The architecture, with as many decisions as needed, in random order, set to the anchor's.

        Found by bisection: with the last of them as it was, it would not fit. So the last one gets whichever
        of its choices fits and uses most of the limits.

        Raises:
            BudgetError: no member is known to keep the budgets.
        """
        self.certificate.require_reachable()
        if self.feasible(architecture):
            return architecture
        anchor = self.certificate.anchor
        names = [name for name, choice in architecture.choices if choice != anchor[name]]
        generator.shuffle(names)

        def changed(count: int) -> Architecture:
            result = architecture
            for name in names[:count]:
                result = result.with_choice(name, anchor[name])
            return result

        beyond, within = 0, len(names)
        while within - beyond > 1:
            middle = (beyond + within) // 2
            if self.feasible(canonical(self.space, changed(middle))):
                within = middle
            else:
                beyond = middle
        # Not of the canonical form: that may have lost decisions which do not matter yet, but will.
        fitting = filter(self.feasible, self._variants(changed(beyond), names[beyond]))
        return max(fitting, key=self.use)

    def fill(self, architecture: Architecture, generator: random.Random) -> Architecture:
        """The architecture, with decisions changed in random order until little of the limits is unused.

        Each gets any of its choices that fits and takes more. What is near a limit stays as it is.
        """
        names = [name for name, _ in architecture.choices]
        generator.shuffle(names)
        for name in names:
            used = self.use(architecture)
            if used >= _NEAR:
                break
            fitting = filter(self.feasible, self._variants(architecture, name))
            larger = [variant for variant in fitting if self.use(variant) > used]
            if larger:
                architecture = generator.choice(larger)
        return architecture

    def can_grow(self, architecture: Architecture) -> bool:
        """Whether another choice of one decision takes more and keeps the limits."""
        used = self.use(architecture)
        variants = (each for name, _ in architecture.choices for each in self._variants(architecture, name))
        return any(self.feasible(each) and self.use(each) > used for each in variants)

    def _variants(self, architecture: Architecture, name: str) -> list[Architecture]:
        """With each choice of one decision."""
        choices = next(each.choices for each in self.space.decisions if each.name == name)
        return [canonical(self.space, architecture.with_choice(name, choice)) for choice in choices]

    @cached_property
    def members(self) -> tuple[Architecture, ...]:
        """Every architecture within the budgets, in a fixed order; goes through the whole space, once."""
        within: list[Architecture] = []
        batch: list[Architecture] = []
        for member in self.space.members():
            batch.append(member)
            if len(batch) == _BATCH:
                within += self._within(batch)
                batch = []
        return (*within, *self._within(batch))

    def _within(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        for target, limit in self.limits_ns.items():
            estimates = self.models[target].estimate(architectures)
            architectures = [a for a, e in zip(architectures, estimates, strict=True) if e.high_ns <= limit]
        return list(filter(self._allows, architectures))
