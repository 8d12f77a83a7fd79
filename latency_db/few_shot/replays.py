"""Known devices, each predicted from the others as if it were new, weigh scales and calibrate intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

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
        return most_informative(self.design(among), covariance, float(scales.noise) ** 2, count)

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
        self._latest: tuple[bytes, Array, Array] | None = None

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
        if self._latest is None or self._latest[0] != index.tobytes():
            self._latest = index.tobytes(), *self._replay_all(model, index)
        _, error, reached = self._latest
        if not len(error):
            return _deviations_of_folds(model, index, values, coverage)
        return float(error[min(int(np.searchsorted(reached, coverage)), len(error) - 1)])

    def _replay_all(self, model: FewShotModel, index: Indices) -> tuple[Array, Array]:
        """Errors (n,) of all groups, ascending, and the share (n,) that each reaches."""
        if not self._taught:
            return np.empty(0), np.empty(0)
        count = min(len(index), _REPLAYED_SAMPLES)
        spread = index[np.linspace(0, len(index) - 1, count).round().astype(int)]
        chosen = np.isin(model.first_choices[:count], index).mean() > 0.5
        found = [
            self._replay(group, self._choices(group)[:count] if chosen else spread) for group in self._groups
        ]
        found = [errors for errors in found if len(errors)] or [np.empty(0)]
        errors = np.concatenate(found)
        shares = np.concatenate([np.full(len(each), 1 / max(len(each), 1)) for each in found])
        order = np.argsort(errors)
        return errors[order], np.cumsum(shares[order]) / len(found)

    def _choices(self, group: str) -> Indices:
        """What would have been chosen for a group, among some architectures."""
        if group not in self._chosen:
            measured = np.isfinite(self._devices.logs[:, self._devices.groups == group]).any(axis=1)
            among = np.random.default_rng(0).permutation(np.flatnonzero(measured))[:_REPLAYED_CHOICES]
            count = min(_REPLAYED_SAMPLES, len(among))
            self._chosen[group] = among[self.model(without=group).choose(count, among)]
        return self._chosen[group]

    def _replay(self, group: str, index: Indices) -> Array:
        """Errors of a group's devices; where one was not measured, other architectures stand in."""
        model = self.model(without=group)
        random = np.random.default_rng(0)
        found = []
        for logs, known in self._members(group):
            sampled = np.intersect1d(index, known)
            others = random.permutation(np.setdiff1d(known, index))
            missing = min(len(index) - len(sampled), len(others) // 2)
            sampled = np.sort(np.concatenate([sampled, others[:missing]]))
            checked = others[missing : missing + _CHECKS]
            if len(sampled) and len(checked):
                posterior = model.fit(sampled, np.exp(logs[sampled]))
                found.append(model.errors(posterior, checked, logs[checked]))
        return np.concatenate(found) if found else np.empty(0)


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
