"""Latency on a new device from few samples."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latency_db.errors import EstimateError
from latency_db.few_shot.predictor import DeviceBasis, choose, choose_next, predict
from latency_db.few_shot.prior import shared_components
from tests.places import ROOT, SHARED

ARCHITECTURES, FEATURES, RANK = 400, 12, 3


def devices(seed: int, sources: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, source latencies and a new device of the same low-rank family, in milliseconds."""
    random = np.random.default_rng(seed)
    features = random.integers(0, 3, (ARCHITECTURES, FEATURES)).astype(float)
    basis = random.normal(size=(FEATURES, RANK)) * 0.15
    mixes = random.normal(size=(RANK, sources + 1)) * 0.5 + 1
    logs = 2 + (features - 1) @ basis @ mixes
    logs += noise * random.normal(size=logs.shape)
    return features, np.exp(logs[:, :-1]), np.exp(logs[:, -1])


def draw(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, 7]).choice(ARCHITECTURES, count, replace=False)


@settings(max_examples=8, derandomize=True)
@example(seed=2558)
@given(seed=st.integers(0, 10_000))
def test_a_combination_of_the_sources_is_recovered(seed: int) -> None:
    estimate, low, high, new = predicted(seed)
    assert np.abs(np.log(estimate / new)).max() < 0.1
    assert (low <= estimate).all() and (estimate <= high).all()


def predicted(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Estimates with their intervals of a new device, and the truth."""
    features, sources, new = devices(seed, 6)
    index = choose(features, sources, 12)
    return (*predict(features, sources, index, new[index]), new)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-6, 1e6))
def test_estimates_scale_with_the_unit_of_the_samples(seed: int, scale: float) -> None:
    features, sources, new = devices(seed, 4, noise=0.03)
    index = draw(seed, 10)
    plain = predict(features, sources, index, new[index])
    scaled = predict(features, sources * scale, index, new[index] * scale)
    np.testing.assert_allclose(np.array(scaled), np.array(plain) * scale, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_samples_and_sources_does_not_matter(seed: int) -> None:
    features, sources, new = devices(seed, 2, noise=0.03)
    index = draw(seed, 10)
    order = np.random.default_rng(seed).permutation(10)
    plain = predict(features, sources, index, new[index])
    shuffled = predict(features, sources[:, ::-1], index[order], new[index[order]])
    np.testing.assert_allclose(np.array(shuffled), np.array(plain), rtol=1e-4)


def test_intervals_widen_with_fewer_samples() -> None:
    widths = []
    for count in (2, 5, 30):
        found = []
        for seed in range(10):
            features, sources, new = devices(seed, 5, noise=0.05)
            _, low, high = predict(features, sources, draw(seed, count), new[draw(seed, count)])
            found.append(np.median(np.log(high / low)))
        widths.append(np.mean(found))
    assert widths[0] > widths[1] > widths[2]


@pytest.mark.parametrize(("sources", "count"), [(0, 80), (1, 30), (6, 30), (6, 10)])
@pytest.mark.parametrize("chosen", [False, True])
def test_intervals_cover_what_they_state(sources: int, count: int, chosen: bool) -> None:
    covered = []
    for seed in range(10):
        features, known, new = devices(seed, sources, noise=0.06)
        basis = DeviceBasis(features, known)
        index = basis.choose(count) if chosen else draw(seed, count)
        _, low, high = basis.predict(index, new[index], coverage=0.9)
        rest = np.setdiff1d(np.arange(ARCHITECTURES), index)
        covered.append(((low <= new) & (new <= high))[rest].mean())
    assert 0.82 <= np.mean(covered) <= 0.98


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_table_gives_ordered_finite_positive_bounds(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    rows, width = data.draw(st.integers(8, 60)), data.draw(st.integers(1, 12))
    features = random.integers(0, data.draw(st.integers(1, 4)), (rows, width)).astype(float)
    sources = np.exp(random.normal(size=(rows, data.draw(st.integers(0, 6)))))
    sources[2:][random.random(sources[2:].shape) < data.draw(st.floats(0, 1))] = np.nan
    index = random.permutation(rows)[: data.draw(st.integers(5, rows))]
    estimate, low, high = predict(features, sources, index, np.exp(random.normal(size=len(index)) * 0.3))
    assert np.isfinite(high).all() and (low > 0).all()
    assert (low <= estimate).all() and (estimate <= high).all()


def test_what_devices_share_beyond_the_features_is_used() -> None:
    errors = []
    for seed in range(5):
        features, sources, new = devices(seed, 8, noise=0.01)
        shared = np.random.default_rng([seed, 1]).normal(size=ARCHITECTURES) * 0.1
        sources, new = sources * np.exp(shared)[:, None], new * np.exp(shared)
        index = draw(seed, 12)
        estimate, _, _ = predict(features, sources, index, new[index])
        errors.append(np.std(np.log(estimate / new)))
    assert np.mean(errors) < 0.05


def test_a_shared_component_is_found_and_noise_is_not_one() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=(2000, 9))
    shared = random.normal(size=2000)
    scores, loadings = shared_components(noise, np.ones(9))
    assert scores.shape == (2000, 0) and loadings.shape == (0, 9)
    mixed = noise + np.outer(shared, np.linspace(0.5, 2, 9))
    scores, loadings = shared_components(mixed, mixed.std(axis=0))
    assert scores.shape == (2000, 1)
    assert abs(np.corrcoef(scores[:, 0], shared)[0, 1]) > 0.9
    np.testing.assert_allclose(np.abs(loadings[0]), np.linspace(0.5, 2, 9), atol=0.25)


def test_a_higher_coverage_gives_wider_intervals() -> None:
    features, sources, new = devices(0, 5, noise=0.05)
    index = draw(0, 15)
    _, low, high = predict(features, sources, index, new[index], coverage=0.6)
    _, lower, higher = predict(features, sources, index, new[index], coverage=0.95)
    assert (lower < low).all() and (higher > high).all()


def test_missing_and_failed_source_rows_barely_move_the_estimate() -> None:
    features, sources, new = devices(3, 6, noise=0.02)
    index = draw(3, 15)
    clean, _, _ = predict(features, sources, index, new[index])
    sources[::50, 0] = 0.002
    sources[5:100, 1] = np.nan
    faulty, _, _ = predict(features, sources, index, new[index])
    assert np.abs(np.log(faulty / clean)).max() < 0.1


def test_a_device_that_was_not_measured_where_the_samples_are_still_helps() -> None:
    features, sources, new = devices(3, 6, noise=0.02)
    index = draw(3, 15)
    sources[index, :4] = np.nan
    estimate, low, high = predict(features, sources, index, new[index])
    assert np.median(np.abs(np.log(estimate / new))) < 0.05
    assert ((low <= new) & (new <= high)).mean() > 0.7


def test_failed_samples_barely_move_the_estimate() -> None:
    features, sources, new = devices(4, 6, noise=0.02)
    index = draw(4, 20)
    times = new[index].copy()
    times[0], times[1] = 0.003, times[1] * 3
    estimate, _, _ = predict(features, sources, index, times)
    assert np.median(np.abs(np.log(estimate / new))) < 0.05


def test_whole_milliseconds_are_no_obstacle() -> None:
    features, sources, new = devices(5, 6)
    new = np.maximum(np.round(new), 1)
    index = draw(5, 20)
    estimate, low, high = predict(features, sources, index, new[index])
    assert np.median(np.abs(estimate - new)) < 1
    assert ((low <= new) & (new <= high)).mean() > 0.8


def test_without_sources_the_features_alone_predict() -> None:
    features, _, new = devices(6, 1, noise=0.02)
    index = draw(6, 60)
    estimate, _, _ = predict(features, np.empty((ARCHITECTURES, 0)), index, new[index])
    assert np.median(np.abs(np.log(estimate / new))) < 0.05


def test_one_sample_sets_the_scale() -> None:
    features, sources, new = devices(7, 6)
    estimate, low, high = predict(features, sources * 10, np.array([3]), new[[3]])
    assert abs(np.log(estimate[3] / new[3])) < 0.2
    assert np.isfinite(high / low).all()


def test_chosen_samples_predict_better_than_random_ones() -> None:
    errors = {"chosen": [], "random": []}
    for seed in range(10):
        features, sources, new = devices(seed, 8, noise=0.03)
        basis = DeviceBasis(features, sources)
        for name, index in (("chosen", basis.choose(6)), ("random", draw(seed, 6))):
            estimate, _, _ = basis.predict(index, new[index])
            errors[name].append(np.sqrt(np.mean(np.log(estimate / new) ** 2)))
    assert np.mean(errors["chosen"]) < np.mean(errors["random"])


def test_choices_are_distinct_repeatable_and_nested() -> None:
    features, sources, _ = devices(8, 5, noise=0.03)
    chosen = choose(features, sources, 20)
    assert len(set(chosen.tolist())) == 20
    np.testing.assert_array_equal(chosen[:7], choose(features, sources, 7))


def test_the_next_choice_is_new_when_runs_failed() -> None:
    features, sources, new = devices(9, 5, noise=0.03)
    index = choose(features, sources, 6)
    times = new[index].copy()
    times[2] = np.nan
    following = choose_next(features, sources, index, times, 4)
    assert len(set(following.tolist()) - set(index.tolist())) == 4
    nothing_ran = choose_next(features, sources, index, np.full(6, np.nan), 4)
    assert not set(nothing_ran.tolist()) & set(index.tolist()) and len(nothing_ran) == 4


@pytest.mark.parametrize(
    ("index", "times", "said"),
    [
        ([1, 1], [2.0, 2.0], "sampled twice"),
        ([1, 2], [2.0], "latencies for"),
        ([1, 2], [2.0, float("nan")], "not finite"),
        ([1, 2], [2.0, 0.0], "not positive"),
        ([1, 2], [2.0, -1.0], "not positive"),
        ([-1, 2], [2.0, 1.0], "names rows"),
        ([1, ARCHITECTURES], [2.0, 1.0], "names rows"),
        ([1.5, 2.0], [2.0, 1.0], "sample_index"),
        ([], [], "0 usable samples"),
    ],
)
def test_bad_samples_are_refused(index: list[float], times: list[float], said: str) -> None:
    features, sources, _ = devices(0, 3)
    with pytest.raises(EstimateError, match=said):
        predict(features, sources, np.array(index), np.array(times))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: (x[:-1], y), "of shape"),
        (lambda x, y: (x[:, 0], y), "of shape"),
        (lambda x, y: (np.where(x == 0, np.nan, x), y), "features hold"),
        (lambda x, y: (x, -y), "not positive"),
        (lambda x, y: (x, np.where(y == y.max(), np.inf, y)), "infinite"),
        (lambda x, y: (x, np.full_like(y, np.nan)), "fewer than 2"),
    ],
)
def test_bad_sources_are_refused(change, said: str) -> None:  # type: ignore[no-untyped-def]
    features, sources, _ = devices(0, 3)
    with pytest.raises(EstimateError, match=said):
        DeviceBasis(*change(features, sources))


def test_other_bad_requests_are_refused() -> None:
    features, sources, new = devices(0, 3)
    with pytest.raises(EstimateError, match="coverage"):
        predict(features, sources, [1], new[[1]], coverage=1.0)
    with pytest.raises(EstimateError, match="usable samples"):
        predict(features, np.empty((ARCHITECTURES, 0)), [1, 2], new[[1, 2]])
    with pytest.raises(EstimateError, match="asked for"):
        choose(features, sources, ARCHITECTURES + 1)
    with pytest.raises(EstimateError, match="source groups"):
        DeviceBasis(features, sources, ["a"])


def stranger(seed: int, new: np.ndarray, size: float) -> np.ndarray:
    """The device, with what depends on something that neither the features nor the sources know."""
    unknown = np.random.default_rng([seed, 3]).integers(0, 2, ARCHITECTURES)
    return np.asarray(new * np.exp(size * (2 * unknown - 1)))


@pytest.mark.parametrize("chosen", [False, True])
def test_the_level_of_a_stranger_is_kept_its_intervals_widen_and_it_is_told(chosen: bool) -> None:
    levels, told, wider, covered = [], [], [], []
    for seed in range(6):
        features, sources, new = devices(seed, 6, noise=0.03)
        basis, strange = DeviceBasis(features, sources), stranger(seed, new, 0.25)
        index = basis.choose(20) if chosen else draw(seed, 20)
        _, low, high = basis.predict(index, new[index])
        estimate, lower, higher = basis.predict(index, strange[index])
        levels.append(np.mean(np.log(estimate / strange)))
        wider.append(np.median(np.log(higher / lower) / np.log(high / low)))
        covered.append(((lower <= strange) & (strange <= higher)).mean())
        told.append((basis.explain(index, new[index]).is_good, basis.explain(index, strange[index]).is_good))
    assert np.mean(np.abs(levels)) < 0.08
    assert min(wider) > 1.5
    assert np.mean(covered) > 0.8
    assert [known for known, _ in told].count(True) >= 5
    assert [unknown for _, unknown in told].count(False) >= 5


@pytest.mark.parametrize("stretch", [0.5, 1.6])
def test_a_device_on_which_everything_differs_less_or_more_is_recovered(stretch: float) -> None:
    errors = []
    for seed in range(5):
        features, sources, _ = devices(seed, 6, noise=0.02)
        new = np.exp(stretch * np.log(sources).mean(axis=1))
        basis = DeviceBasis(features, sources)
        index = basis.choose(8)
        estimate, _, _ = basis.predict(index, new[index])
        errors.append(np.median(np.abs(np.log(estimate / new))))
    assert np.mean(errors) < 0.05


def test_known_devices_explain_one_of_their_own_as_well_as_each_other() -> None:
    features, sources, new = devices(3, 6, noise=0.03)
    index = draw(3, 12)
    basis = DeviceBasis(features, sources)
    found = basis.explain(index, new[index])
    assert len(found.known_errors) == 6
    assert found.error < 0.1
    assert basis.explain(index, 1e3 * new[index]).error == pytest.approx(found.error, rel=1e-3)
    assert not DeviceBasis(features, sources[:, :2]).explain(index, new[index]).known_errors


def benchmark() -> ModuleType:
    path = ROOT / "tools" / "bench" / "few_shot.py"
    spec = importlib.util.spec_from_file_location("bench_few_shot", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_published_devices_are_predicted_when_left_out() -> None:
    path = SHARED / "nasbench201" / "nasbench201.npz"
    if not path.exists():
        pytest.skip("LATHE_SHARED_DATA has no NAS-Bench-201")
    bench, data = benchmark(), np.load(path)
    names, latency = [str(name) for name in data["device"]], data["latency_ms"]
    features = bench.describe(data["arch_ops"].astype(int), data["macs_cifar10"].astype(float))
    rows = []
    for device in ("titanx_1", "gold_6240", "samsung_a50", "silver_4210r"):
        kept = [i for i, name in enumerate(names) if bench.group_of(name) != bench.group_of(device)]
        basis = DeviceBasis(features, latency[:, kept], [bench.group_of(names[i]) for i in kept])
        values = latency[:, names.index(device)]
        rows.append(bench.score(basis, basis.choose(10), values, values < np.median(values) / 5))
    found = bench.mean(rows)
    assert found["spearman"] > 0.95
    assert found["within_10_percent"] > 0.75
    assert 0.8 < found["coverage_90"] < 0.99
