"""What happens when winners miss a budget: the next candidate, then another round below tighter limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from pipeline.budget import allowing
from pipeline.errors import VerificationError
from pipeline.run.context import Context
from pipeline.spaces.base import Architecture
from pipeline.stages.latency.predictors import LatencyPredictors
from pipeline.stages.searching.candidates import Round, Searched
from pipeline.stages.student.winner import Failure
from pipeline.tables.building.networks import MeasuredNetwork

W = TypeVar("W")


def search_and_try(
    context: Context,
    predictors: LatencyPredictors,
    search: Callable[[Round], Searched],
    attempt: Callable[[Searched], tuple[W | None, Sequence[Failure]]],
) -> tuple[Searched, W]:
    """Up to ``search.rounds`` rounds of searching and trying; the last search, and its winner.

    Before the next round the models learn from every network that was measured. What broke a budget tightens
    the limits, by the worst ratio of a measured upper end to the one predicted now: none of these would be
    proposed again. Where nothing was measured beyond a budget, because measurements are invalid, there is no
    other round.

    Args:
        context: of the run.
        predictors: what is known of latencies before.
        search: does one round.
        attempt: makes a winner of what a round found, if it can, and tells of the failures before it.

    Raises:
        VerificationError: no winner in any round; names the nearest budgets that a measured network keeps.
    """
    this, failures = Round(predictors, context.tries), list[Failure]()
    measured = list[MeasuredNetwork]()
    while True:
        searched = search(this)
        winner, failed = attempt(searched)
        if winner is not None:
            return searched, winner
        failures += failed
        measured += searched.measured
        following = _next(this, searched, failures, measured)
        reachable = following.predictors.constraints.certificate.reachable
        last = this.number == context.recipe.search.rounds or not reachable
        if last or not _nearest(predictors, failures, measured):
            raise _none(context, predictors, failures, measured)
        this = following
        factors = ", ".join(f"{1 / factor:.3f} on {name}" for name, factor in this.predictors.factors.items())
        context.reporter.note(
            f"search       no candidate keeps the budgets as measured; continues below {factors} of them"
        )


def _next(
    this: Round, searched: Searched, failures: Sequence[Failure], measured: Sequence[MeasuredNetwork]
) -> Round:
    predictors = this.predictors.learned(measured)
    limits, factors = (
        predictors.limits_ns,
        dict.fromkeys(sorted(predictors.limits_ns.keys() - predictors.soft), 1.0),
    )
    for architecture, shares in _shares(predictors, failures, measured).items():
        estimates = predictors.estimates(architecture)
        for name in factors.keys() & shares.keys():
            if shares[name] > 1:
                factors[name] = max(factors[name], shares[name] * limits[name] / estimates[name].high_ns)
    return Round(
        replace(predictors, factors=factors),
        this.tries,
        this.number + 1,
        tuple(each.candidate for each in searched.candidates),
        this.rejected | {each.architecture.identity for each in failures},
    )


def _shares(
    predictors: LatencyPredictors, failures: Sequence[Failure], measured: Sequence[MeasuredNetwork]
) -> dict[Architecture, Mapping[str, float]]:
    """Measured upper ends over the limits, by target; an artifact's stand before its network's."""
    shares: dict[Architecture, dict[str, float]] = {}
    for network in measured:
        share = predictors.judged(network).high_ns / predictors.limits_ns[network.target]
        shares.setdefault(network.architecture, {})[network.target] = share
    for failure in failures:
        shares.setdefault(failure.architecture, {}).update(failure.shares)
    return dict(shares)


def _none(
    context: Context,
    predictors: LatencyPredictors,
    failures: Sequence[Failure],
    measured: Sequence[MeasuredNetwork],
) -> VerificationError:
    fix = "leave the devices to the measurement alone and run again"
    if needed := _nearest(predictors, failures, measured):
        fix = (
            f"allow {allowing(context.budgets, needed, predictors.limits_ns)}, which a measured network keeps"
        )
    return VerificationError(
        "no candidate keeps its budgets when measured on the targets",
        why="; ".join(f"{each.architecture.brief}: {each.why}" for each in failures)
        or "every candidate of the search was measured over a budget, or could not be measured",
        fix=f"{fix}; or rate more candidates (search.evaluations), try more (verify.candidates), or search "
        "longer (search.rounds)",
    )


def _nearest(
    predictors: LatencyPredictors, failures: Sequence[Failure], measured: Sequence[MeasuredNetwork]
) -> dict[str, float] | None:
    """The nearest limits that a network keeps which was measured beyond the budgets; ``None`` without one."""
    hard = predictors.limits_ns.keys() - predictors.soft
    worst = {
        max((each[name] for name in hard), default=0.0): each
        for each in _shares(predictors, failures, measured).values()
        if hard <= each.keys()
    }
    beyond = [worst[share] for share in sorted(worst) if share > 1]
    return {name: max(1.0, beyond[0][name]) * predictors.limits_ns[name] for name in hard} if beyond else None
