"""Known devices, each predicted from the others as if it were new, weigh scales and calibrate intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from latency_db.few_shot.design import Indices, most_informative
from latency_db.few_shot.prior import Array, Devices, Prior, learn_prior
from latency_db.few_shot.regression import (
    Posterior,
    Samples,
    Scales,
    prior_covariance,
    regress,
    resolution_of,
    weigh,
)

_MIN_GROUPS = 3
_DESIGN_OFFSET_VARIANCE = 4.0
_VOTING_SAMPLES = 40
_REPLAYED_SAMPLES = 40
_REPLAYED_CHOICES = 2000
_CHECKS = 800
_FOLDS = 10
_MISFIT = 0.1


@dataclass(frozen=True)
class FewShotModel:
    """A prior, the features (n_arch, p) it is about, and the log prior (g,) of the scales."""

    features: Array
    prior: Prior
    scales: Scales
    vote: Array

    def design(self, index: Indices | slice = slice(None)) -> Array:
        """Rows (n, 1 + p + k): ones, features, components."""
        rows = self.features[index]
        return np.hstack([np.ones((len(rows), 1)), rows, self.prior.components[index]])

    def observe(self, index: Indices, values: Array) -> Samples:
        """These architectures with their latencies (n,)."""
        step = resolution_of(values)
        return Samples(self.design(index), np.log(values), step**2 / 12 / values**2, step)

    def fit(self, index: Indices, values: Array) -> Posterior:
        """What these latencies (n,) say about the device."""
        return regress(self.observe(index, values), self.prior, self.scales, self.vote)

    def choose(self, count: int, among: Indices | slice = slice(None)) -> Indices:
        """Positions (count,) in `among`, or in all architectures, to measure first."""
        likely = np.exp(self.vote)
        scales = Scales(*(np.array(likely @ scale / likely.sum()) for scale in self.scales))
        covariance = prior_covariance(self.prior, scales, _DESIGN_OFFSET_VARIANCE)
        design = self.design(among)
        return most_informative(design, covariance, self.misfit(design, float(scales.noise) ** 2), count)

    def misfit(self, design: Array, noise: float) -> Array:
        """Variance (n,) that a sample is chosen with: where known devices differ more, it is trusted less.

        Without it the most extreme architectures are chosen. Where the model is wrong, they miss to one side
        and put the level of all others off.
        """
        return noise + _MISFIT * self.prior.spread(design[:, 1:])

    @cached_property
    def first_choices(self) -> Indices:
        """What `choose` names first."""
        return self.choose(min(_REPLAYED_SAMPLES, len(self.features)))

    def errors(self, posterior: Posterior, index: Indices, logs: Array) -> Array:
        """Absolute errors (n,) in the standard deviations that were stated."""
        design = self.design(index)
        centre = design @ posterior.weights
        return np.asarray(
            np.abs(logs - centre) / np.sqrt(np.sum(posterior.variances(design, centre), axis=0))
        )


class _Outcome(NamedTuple):
    """What replays have shown.

    errors (n,): of all groups, ascending, in the standard deviations that were stated; reached (n,): the
    share that each reaches; left_out (n_groups,): typical error of a sample predicted from the others.
    """

    errors: Array
    reached: Array
    left_out: Array


class Replays:
    """Known devices and what predicting them teaches.

    features (n_arch, p): whitened; variance (p,): each one's share of all variance.
    """

    def __init__(self, features: Array, variance: Array, devices: Devices) -> None:
        self._features, self._variance, self._devices = features, variance, devices
        self._groups = sorted(set(devices.groups))
        self._taught = len(self._groups) >= _MIN_GROUPS
        self._priors: dict[str, Prior] = {}
        self._ballots: dict[str, Array] = {}
        self._chosen: dict[str, Indices] = {}
        self._latest: tuple[bytes, _Outcome] | None = None

    def model(self, without: str | None = None) -> FewShotModel:
        """For a new device, from all known ones or from those of all groups but one.

        Every left-out group votes for the scales that explain it. One more vote is for all scales alike.
        """
        if without is None:
            prior = learn_prior(self._devices, self._variance)
        else:
            prior = self._prior_without(without)
        scales = Scales.for_devices(prior.devices)
        alike = np.full(len(scales.noise), 1 / len(scales.noise))
        if not self._taught:
            return FewShotModel(self._features, prior, scales, np.log(alike))
        votes = [self._ballot(group) for group in self._groups if group != without]
        return FewShotModel(self._features, prior, scales, np.log(np.mean([*votes, alike], axis=0)))

    def _prior_without(self, group: str) -> Prior:
        if group not in self._priors:
            self._priors[group] = learn_prior(self._devices.without(group), self._variance)
        return self._priors[group]

    def _ballot(self, group: str) -> Array:
        """How likely each point of the grid is (g,) by a group that is predicted from the others."""
        if group not in self._ballots:
            prior = self._prior_without(group)
            scales = Scales.for_devices(prior.devices)
            model = FewShotModel(self._features, prior, scales, np.zeros(len(scales.noise)))
            random = np.random.default_rng(0)
            shares = []
            for logs, known in self._members(group):
                index = np.sort(random.permutation(known)[:_VOTING_SAMPLES])
                evidence = weigh(model.observe(index, np.exp(logs[index])), prior, scales)
                share = np.exp(evidence - evidence.max())
                shares.append(share / share.sum())
            self._ballots[group] = np.mean(shares, axis=0)
        return self._ballots[group]

    def _members(self, group: str) -> Iterator[tuple[Array, Indices]]:
        for member in np.flatnonzero(self._devices.groups == group):
            logs = self._devices.logs[:, member]
            yield logs, np.flatnonzero(np.isfinite(logs))

    def deviations(self, model: FewShotModel, index: Indices, values: Array, coverage: float) -> float:
        """How many stated standard deviations an interval must reach to either side.

        Known devices are predicted from the other groups and from the same architectures as the new one; if
        those were chosen, from what would have been chosen for them, as choices look better than they are.
        Groups count alike. With too few groups, folds of the samples are predicted from the rest.
        """
        outcome = self._outcome(model, index)
        if not len(outcome.errors):
            return _deviations_of_folds(model, index, values, coverage)
        position = int(np.searchsorted(outcome.reached, coverage))
        return float(outcome.errors[min(position, len(outcome.errors) - 1)])

    def left_out_errors(self, model: FewShotModel, index: Indices) -> Array:
        """Typical error (n_groups,) of a sample's log that is predicted from the others, by known group.

        Groups are sampled as for ``deviations``. Empty with too few of them.
        """
        return self._outcome(model, index).left_out

    def _outcome(self, model: FewShotModel, index: Indices) -> _Outcome:
        if self._latest is None or self._latest[0] != index.tobytes():
            self._latest = index.tobytes(), self._replay_all(model, index)
        return self._latest[1]

    def _replay_all(self, model: FewShotModel, index: Indices) -> _Outcome:
        if not self._taught:
            return _Outcome(np.empty(0), np.empty(0), np.empty(0))
        count = min(len(index), _REPLAYED_SAMPLES)
        spread = index[np.linspace(0, len(index) - 1, count).round().astype(int)]
        chosen = np.isin(model.first_choices[:count], index).mean() > 0.5
        found = [
            self._replay(group, self._choices(group)[:count] if chosen else spread) for group in self._groups
        ]
        found = [each for each in found if len(each[0])] or [(np.empty(0), np.empty(0))]
        errors = np.concatenate([each for each, _ in found])
        shares = np.concatenate([np.full(len(each), 1 / max(len(each), 1)) for each, _ in found])
        left_out = np.array([np.median(np.abs(each)) for _, each in found if len(each)])
        order = np.argsort(errors)
        return _Outcome(errors[order], np.cumsum(shares[order]) / len(found), left_out)

    def _choices(self, group: str) -> Indices:
        """What would have been chosen for a group, among some architectures."""
        if group not in self._chosen:
            measured = np.isfinite(self._devices.logs[:, self._devices.groups == group]).any(axis=1)
            among = np.random.default_rng(0).permutation(np.flatnonzero(measured))[:_REPLAYED_CHOICES]
            count = min(_REPLAYED_SAMPLES, len(among))
            self._chosen[group] = among[self.model(without=group).choose(count, among)]
        return self._chosen[group]

    def _replay(self, group: str, index: Indices) -> tuple[Array, Array]:
        """Errors of a group's devices, and those of the samples, each left out of them.

        Where one was not measured, other architectures stand in.
        """
        model = self.model(without=group)
        random = np.random.default_rng(0)
        found, left_out = [], []
        for logs, known in self._members(group):
            sampled = np.intersect1d(index, known)
            others = random.permutation(np.setdiff1d(known, index))
            missing = min(len(index) - len(sampled), len(others) // 2)
            sampled = np.sort(np.concatenate([sampled, others[:missing]]))
            checked = others[missing : missing + _CHECKS]
            if len(sampled) and len(checked):
                posterior = model.fit(sampled, np.exp(logs[sampled]))
                found.append(model.errors(posterior, checked, logs[checked]))
                left_out.append(posterior.left_out)
        return (np.concatenate(found), np.concatenate(left_out)) if found else (np.empty(0), np.empty(0))


def _deviations_of_folds(model: FewShotModel, index: Indices, values: Array, coverage: float) -> float:
    count = len(index)
    rank = math.ceil((count + 1) * coverage)
    if rank > count:
        return NormalDist().inv_cdf((1 + coverage) / 2)
    folds = count if count <= 2 * _FOLDS else _FOLDS
    fold = np.random.default_rng(0).permutation(count) % folds
    errors = []
    for left_out in range(folds):
        out = fold == left_out
        posterior = model.fit(index[~out], values[~out])
        errors.append(model.errors(posterior, index[out], np.log(values[out])))
    return float(np.sort(np.concatenate(errors))[rank - 1])
