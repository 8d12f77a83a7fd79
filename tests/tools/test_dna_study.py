"""What the study concludes from scores; the study itself is too long for a test."""

import dataclasses
import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tools.studies import dna_ranking
from tools.studies.dna_page import page, write_page
from tools.studies.dna_ranking import rank, rho, tau
from tools.studies.dna_scale import NEAR, macs_of, near, space_for, uniform

BANDS = np.repeat(np.arange(5), 6)
EVALUATORS = ("DNA", "SPOS", "MACs", "parameters", "distillation proxy")


def document(rankings):
    return {
        "networks": 30,
        "bands": 5,
        "architectures": 1000,
        "train_images": 100,
        "test_images": 100,
        "epochs_alone": 2,
        "teacher_accuracy": 0.9,
        "accuracies": {"least": 0.7, "mean": 0.75, "most": 0.8},
        "macs": [1, 2],
        "found": [
            {"limit_macs": 2e6, "macs": 1.5e6, "found": 0.8, "uniform": None, "mean": 0.7, "best": 0.9}
        ],
        "rivals": {"macs": 1.5e6, "found": [0.8, 0.82], "rivals": [0.7, 0.805, 0.9]},
        "rankings": {name: dataclasses.asdict(each) for name, each in rankings.items()},
    }


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(dna_ranking, "RESAMPLES", 200)


@given(pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30))
def test_correlations_are_those_of_scipy(pairs):
    x, y = np.array(pairs, float).T
    for ours, theirs in (
        (tau(x, y, np.zeros(len(x), int)), stats.kendalltau(x, y).statistic),
        (rho(x, y), stats.spearmanr(x, y).statistic if np.ptp(x) and np.ptp(y) else np.nan),
    ):
        assert ours == pytest.approx(theirs, nan_ok=True)


def test_rivals_are_distinct_and_near_and_uniform_networks_are_alike_everywhere():
    space = space_for(SimpleNamespace(input_shape=(1, 28, 28), classes=("a", "b")))
    macs = macs_of(space, space.sample(random.Random(1)))
    rivals = near(space, macs, 10, seed=0)
    assert len(set(rivals)) == 10
    assert all(abs(macs_of(space, rival) / macs - 1) <= NEAR for rival in rivals)
    assert len(set(uniform(space))) == 12
    for network in uniform(space):
        choices = space.block_choices(network)
        assert len({operation for choice in choices for operation in choice.operations}) == 1
        assert len({choice.cell.depth for choice in choices}) == 1


def test_a_evaluator_that_only_knows_the_bands_has_no_rank_inside_them():
    generator = np.random.default_rng(0)
    accuracies = BANDS + generator.uniform(0, 0.1, 30)
    ranking = rank({"DNA": accuracies, "bands": BANDS.astype(float)}, accuracies, BANDS)["bands"]
    assert ranking.tau[0] > 0.8
    assert ranking.tau_inside is None


def test_page_says_what_is_shown_and_what_is_not():
    generator = np.random.default_rng(1)
    accuracies = generator.random(30)
    scores = {name: accuracies if name == "DNA" else generator.random(30) for name in EVALUATORS}
    text = page("small", document(rank(scores, accuracies, BANDS)))
    assert "Over all networks, DNA's tau is above zero" in text
    assert "Inside the bands, it is above that of SPOS" in text
    assert "| 2.00 | 1.50 | 80.00% | none fits | 70.00% | 90.00% |" in text
    assert "reaches 80.00%, 82.00%; its mean beats 2 of them" in text
    scores = {name: generator.random(30) for name in EVALUATORS}
    text = page("small", document(rank(scores, accuracies, BANDS)))
    assert "Over all networks, DNA's tau is not shown to be above zero" in text
    assert "it is above that of" not in text


def test_page_of_equal_scores_calls_nothing_defined_and_claims_nothing(tmp_path):
    equal = document(rank(dict.fromkeys(EVALUATORS, np.ones(30)), np.ones(30), BANDS))
    write_page(tmp_path / "results" / "dna.md", "smoke", equal)
    assert (tmp_path / "figures" / "dna.png").exists()
    text = (tmp_path / "results" / "dna.md").read_text()
    assert "not defined" in text
    assert "is above" not in text
    assert "its figures say nothing" in text
