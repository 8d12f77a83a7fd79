from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

pytest.importorskip("nni", reason="NNI is not installed")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.oneshot.pytorch.profiler import (
    ExpectationProfilerPenalty,
    RangeProfilerFilter,
    SampleProfilerPenalty,
)

from devices.measurement.protocol import MeasuringProtocol
from latency_db.errors import EstimateError
from pipeline.integrations.nni import LatencyTableProfiler, NniError
from tests.pipeline.integrations.nni.nni_spaces import IMAGES, Small, TwoLayers
from tests.pipeline.integrations.nni.nni_tables import (
    NETWORKS,
    TARGET,
    block_space,
    fill,
    network_ns,
    profiler,
)

SPACE = block_space(Small, IMAGES)


@pytest.fixture(name="db", scope="module")
def _db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    db = tmp_path_factory.mktemp("filled") / "latency.db"
    fill(db, SPACE)
    return db


@pytest.fixture(name="small", scope="module")
def _small(db: Path) -> LatencyTableProfiler:
    return profiler(db, Small, IMAGES, bound="value")


a_sample = st.fixed_dictionaries(
    {label: st.sampled_from(mutable.values) for label, mutable in SPACE.mutables.items()}
)


@st.composite
def distributions(draw: st.DrawFn) -> dict[str, dict[object, float]]:
    found = {}
    for label, mutable in SPACE.mutables.items():
        shares = [draw(st.floats(0.01, 1)) for _ in mutable.values]
        found[label] = {
            value: share / sum(shares) for value, share in zip(mutable.values, shares, strict=True)
        }
    return found


@given(a_sample)
def test_profile_is_the_latency_in_milliseconds(small: LatencyTableProfiler, sample) -> None:
    assert small.profile(sample) == pytest.approx(network_ns(SPACE, sample) / 1e6, rel=5e-3)


@given(a_sample)
def test_profile_expression_and_estimate_are_one(small: LatencyTableProfiler, sample) -> None:
    assert small.expression.evaluate(sample) == pytest.approx(small.profile(sample))
    (estimate,) = small.model.estimate([SPACE.blocks_of(sample)])
    assert small.estimate(sample).value_ns == pytest.approx(estimate.value_ns)
    assert small.profile(sample) * 1e6 == pytest.approx(estimate.value_ns)


@settings(deadline=None, max_examples=20)
@given(distributions())
def test_expectation_of_the_penalty_is_the_mean_over_the_networks(
    small: LatencyTableProfiler, shares
) -> None:
    expected = 0.0
    for chosen in itertools.product(*(mutable.values for mutable in SPACE.mutables.values())):
        sample = dict(zip(SPACE.mutables, chosen, strict=True))
        expected += small.profile(sample) * math.prod(shares[label][sample[label]] for label in sample)
    assert ExpectationProfilerPenalty(small, 1.0).profile(shares) == pytest.approx(expected)


def test_upper_end_is_the_default_and_a_multiple_of_the_value(db: Path, small: LatencyTableProfiler) -> None:
    upper = profiler(db, Small, IMAGES)
    sample = {label: mutable.values[-1] for label, mutable in SPACE.mutables.items()}
    assert upper.profile(sample) * 1e6 == pytest.approx(small.estimate(sample).high_ns)
    assert upper.expression.evaluate(sample) == pytest.approx(upper.profile(sample))
    with pytest.raises(ValueError, match="neither"):
        LatencyTableProfiler(SPACE, small.model, "lower")  # type: ignore[arg-type]


def test_sample_penalty_is_relative_to_the_baseline(small: LatencyTableProfiler) -> None:
    sample = {label: mutable.values[0] for label, mutable in SPACE.mutables.items()}
    penalty = SampleProfilerPenalty(small, baseline=small.profile(sample) / 2)
    loss, details = penalty(torch.tensor(1.0), sample)
    assert float(loss) == pytest.approx(2.0)
    assert details["penalty"] == small.profile(sample)


def test_gradient_of_the_penalty_is_the_difference_between_candidates(small: LatencyTableProfiler) -> None:
    sample = {label: mutable.values[0] for label, mutable in SPACE.mutables.items()}
    weight = torch.zeros(2, requires_grad=True)
    kernels = dict(zip(("k3", "k5"), torch.softmax(weight, 0), strict=True))
    certain = {label: {choice: 1.0} for label, choice in sample.items()}
    shares = {
        label: {value: certain[label].get(value, 0.0) for value in mutable.values}
        for label, mutable in SPACE.mutables.items()
    }
    ExpectationProfilerPenalty(small, 1.0).profile({**shares, "layer0": kernels}).backward()
    heavier = small.profile({**sample, "layer0": "k5"}) - small.profile({**sample, "layer0": "k3"})
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([-heavier / 4, heavier / 4], rel=1e-4)
    assert heavier > 0


def test_choice_that_cannot_run_is_infinite_is_filtered_and_has_no_expectation(tmp_path: Path) -> None:
    db = tmp_path / "latency.db"
    fill(db, SPACE, failing="layer0=k5", networks=40)
    found = LatencyTableProfiler.load(Small(), IMAGES, str(TARGET), db=str(db), networks=40)
    sample = {label: mutable.values[0] for label, mutable in SPACE.mutables.items()}
    failing = {**sample, "layer0": "k5"}
    allowed = RangeProfilerFilter(found, 0, 1e9)
    assert allowed(sample)
    assert not allowed(failing)
    assert found.profile(failing) == math.inf
    with pytest.raises(EstimateError, match=r"expected latency .* is infinite") as caught:
        ExpectationProfilerPenalty(found, 1.0).profile({})
    assert "layer0=k5" in caught.value.why
    assert "no kernel for it" in caught.value.why


def test_sample_without_a_choice_that_matters_is_refused(small: LatencyTableProfiler) -> None:
    with pytest.raises(NniError, match="no choice that the model space knows for 'width'"):
        small.profile({"down": 0})


def test_load_names_what_is_missing_and_what_differs(db: Path) -> None:
    with pytest.raises(EstimateError, match="lacks 13 of 13 blocks") as caught:
        LatencyTableProfiler.load(
            Small(),
            IMAGES,
            str(TARGET),
            db=str(db),
            networks=NETWORKS,
            protocol=MeasuringProtocol(launches=7),
        )
    assert "Sequential 3x8x8 at stem" in caught.value.why
    assert "the protocol differs" in caught.value.why
    assert "LatencyTableProfiler.build" in caught.value.fix


def test_load_asks_for_more_networks_when_too_few_are_stored(tmp_path: Path) -> None:
    db = tmp_path / "latency.db"
    fill(db, SPACE, networks=3)
    with pytest.raises(EstimateError, match="at least 6"):
        profiler(db, Small, IMAGES)


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_machine", "exporters_here")
def test_build_measures_and_load_gives_the_same(tmp_path: Path) -> None:
    arguments = (TwoLayers(), IMAGES, str(TARGET))
    db = str(tmp_path / "latency.db")
    built = LatencyTableProfiler.build(*arguments, db=db, networks=8)
    loaded = LatencyTableProfiler.load(*arguments, db=db, networks=8)
    assert loaded.model == built.model
    assert 6 <= built.model.fitted_networks <= 8
    assert built.profile({"a": 0, "b": 0}) > built.profile({"a": 2, "b": 2}) > 0
