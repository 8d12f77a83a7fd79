import json
import math
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import WorkFolderError
from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.evaluators.workers import parse_pool
from pipeline.search.journal import Candidate, Journal
from pipeline.search.loop import search
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.search.strategies.fidelities import FidelityPredictor
from pipeline.search.strategies.predictor import PredictorStrategy
from pipeline.search.strategies.random_search import RandomStrategy
from pipeline.spaces.base import Architecture
from tests.pipeline.search.killed_search import SlowEvaluator
from tests.pipeline.search.search_models import by_macs, latency_model, small_space
from tests.places import ROOT

CHEAP = 0.25


def chooser(seed=0, initial=3):
    return FidelityPredictor(constraints(), seed, fidelities=(CHEAP, 1.0), initial=initial)


def constraints(limit_ns=60_000.0, stages=2):
    space = small_space(stages)
    return Constraints(space, {"t": latency_model(space, by_macs)}, {"t": limit_ns})


class CountingEvaluator(SlowEvaluator):
    def __init__(self):
        super().__init__(0.0)
        self.evaluated = []

    def evaluate(self, architecture):
        self.evaluated.append(architecture)
        return super().evaluate(architecture)


def evolution(seed=0):
    return EvolutionStrategy(constraints(), seed, population_size=5, sample_size=2)


def start(journal, seconds):
    command = [sys.executable, "-m", "tests.pipeline.search.killed_search", str(journal), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def test_search_ends_alike_when_it_was_killed_and_continued(tmp_path):
    whole, _ = start(tmp_path / "whole.jsonl", 0.0).communicate(timeout=60)
    journal = tmp_path / "killed.jsonl"
    for lines in (3, 9):
        process = start(journal, 0.2)
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert journal.read_bytes().count(b"\n") < 20
    continued, _ = start(journal, 0.0).communicate(timeout=60)
    assert len(json.loads(whole)) == 20
    assert continued == whole
    assert journal.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@settings(max_examples=15, deadline=None)
@given(kept=st.floats(0, 1))
def test_search_ends_alike_when_the_journal_was_cut_anywhere(tmp_path_factory, kept):
    journal = tmp_path_factory.mktemp("search") / "journal.jsonl"
    whole = search(evolution(), SlowEvaluator(0), 12, journal)
    content = journal.read_bytes()
    journal.write_bytes(content[: int(kept * len(content))])
    evaluator = CountingEvaluator()
    assert search(evolution(), evaluator, 12, journal) == whole
    assert journal.read_bytes() == content
    lines = content[: int(kept * len(content))].count(b"\n")
    assert len(evaluator.evaluated) == 12 - lines


def test_search_rates_nothing_when_the_journal_is_complete(tmp_path):
    first = search(evolution(), SlowEvaluator(0), 8, tmp_path / "journal.jsonl")
    evaluator = CountingEvaluator()
    assert search(evolution(), evaluator, 8, tmp_path / "journal.jsonl") == first
    assert evaluator.evaluated == []


def test_search_goes_on_when_it_is_asked_for_more_candidates(tmp_path):
    first = search(evolution(), SlowEvaluator(0), 5, tmp_path / "journal.jsonl")
    more = search(evolution(), SlowEvaluator(0), 9, tmp_path / "journal.jsonl")
    assert more[:5] == first
    assert more == search(evolution(), SlowEvaluator(0), 9, tmp_path / "another.jsonl")


def test_search_records_failures_and_goes_on(tmp_path):
    class FailingEvaluator:
        def __init__(self):
            self.outcomes = iter([ZeroDivisionError("no"), math.nan, math.inf, 0.5])

        def evaluate(self, architecture):
            outcome = next(self.outcomes)
            if isinstance(outcome, Exception):
                raise outcome
            return Score(outcome, math.nan)

    found = search(evolution(), FailingEvaluator(), 4, tmp_path / "journal.jsonl")
    assert [candidate.failure for candidate in found] == [
        "ZeroDivisionError: no",
        "the score is nan",
        "the score is inf",
        None,
    ]
    assert found[3].score == Score(0.5, None)


def test_search_does_not_swallow_an_interrupt(tmp_path):
    class Interrupted:
        def evaluate(self, architecture):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(evolution(), Interrupted(), 4, tmp_path / "journal.jsonl")


def test_search_rates_an_architecture_once_when_an_strategy_repeats_itself(tmp_path):
    class Stubborn:
        def ask(self):
            return small_space().reference()

        def tell(self, architecture, score):
            pass

    evaluator = CountingEvaluator()
    found = search(Stubborn(), evaluator, 3, tmp_path / "journal.jsonl")
    assert len(found) == 3
    assert len(evaluator.evaluated) == 1


def test_search_ends_early_when_the_strategy_is_exhausted(tmp_path):
    small = constraints(limit_ns=1e9, stages=1)
    found = search(RandomStrategy(small, 0), SlowEvaluator(0), 1000, tmp_path / "journal.jsonl")
    assert len(found) == small.space.count()


def test_search_reports_each_candidate(tmp_path):
    seen = []
    found = search(evolution(), SlowEvaluator(0), 3, tmp_path / "j.jsonl", lambda *call: seen.append(call))
    assert seen == [(1, 3, found[0]), (2, 3, found[1]), (3, 3, found[2])]


def test_search_refuses_the_journal_of_another_search(tmp_path):
    search(evolution(seed=0), SlowEvaluator(0), 3, tmp_path / "journal.jsonl")
    content = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(WorkFolderError, match="another search"):
        search(evolution(seed=1), SlowEvaluator(0), 3, tmp_path / "journal.jsonl")
    assert (tmp_path / "journal.jsonl").read_bytes() == content


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"{}", b'{"choices": 3, "score": null, "failure": "x"}', b"\xff"]
)
def test_journal_refuses_a_damaged_line_before_the_last(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    good = json.dumps(Candidate(Architecture((("a", 1),)), failure="x").to_json()).encode()
    path.write_bytes(line + b"\n" + good + b"\n")
    with pytest.raises(WorkFolderError, match="damaged") as caught:
        Journal(path)
    assert "line 1" in caught.value.why


def test_journal_says_so_when_it_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WorkFolderError, match="cannot be written"):
        Journal(tmp_path / "file" / "journal.jsonl")


def test_search_keeps_what_was_evaluated_when_the_disk_is_full(tmp_path):
    journal = tmp_path / "journal.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(WorkFolderError, match="cannot be written"):
            search(evolution(), SlowEvaluator(0), 12, journal)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    evaluator = CountingEvaluator()
    found = search(evolution(), evaluator, 12, journal)
    assert found == search(evolution(), SlowEvaluator(0), 12, tmp_path / "another.jsonl")
    assert 0 < len(evaluator.evaluated) < 12


choices = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())
scores = st.builds(
    Score,
    value=st.floats(allow_nan=False, allow_infinity=False),
    spread=st.none() | st.floats(0, 1),
)


@given(
    pairs=st.lists(st.tuples(st.text(), choices)),
    outcome=st.one_of(
        st.builds(lambda r: {"score": r}, scores), st.builds(lambda f: {"failure": f}, st.text())
    ),
)
def test_candidate_survives_json(pairs, outcome):
    candidate = Candidate(Architecture(tuple(pairs)), **outcome)
    assert Candidate.from_json(replace(candidate, fidelity=0.5).to_json()).fidelity == 0.5
    again = Candidate.from_json(json.loads(json.dumps(candidate.to_json(), allow_nan=False)))
    assert again == candidate
    assert again.architecture.identity == candidate.architecture.identity


@pytest.mark.parametrize("arguments", [{}, {"score": Score(1.0), "failure": "x"}])
def test_candidate_refuses_both_or_neither_of_score_and_failure(arguments):
    with pytest.raises(ValueError, match="either"):
        Candidate(Architecture(()), **arguments)


def test_search_that_has_enough_begins_no_more_but_takes_what_the_journal_has(tmp_path):
    journal, evaluator = tmp_path / "journal.jsonl", CountingEvaluator()
    few = search(evolution(), evaluator, 12, journal, enough=lambda: len(evaluator.evaluated) >= 4)
    assert len(few) == len(evaluator.evaluated) == 4
    assert search(evolution(), evaluator, 12, journal, enough=lambda: True) == few
    assert len(search(evolution(), evaluator, 12, journal)) == 12
    # One is always evaluated, however short the time.
    assert len(search(evolution(), CountingEvaluator(), 12, tmp_path / "other", enough=lambda: True)) == 1


def test_candidates_that_were_begun_are_finished_when_there_is_enough(tmp_path):
    evaluator = CountingEvaluator()
    found = search(evolution(), evaluator, 12, tmp_path / "journal", ahead=3, enough=lambda: True)
    assert len(found) == len(evaluator.evaluated) == 3


def test_cheap_evaluations_count_as_their_share_and_go_to_their_own_evaluator(tmp_path):
    cheap, dear, seen = CountingEvaluator(), CountingEvaluator(), []
    found = search(
        chooser(),
        dear,
        4,
        tmp_path / "journal.jsonl",
        lambda *call: seen.append(call[:2]),
        cheaper={CHEAP: cheap},
    )
    assert 4 <= sum(each.fidelity for each in found) < 5
    assert [each.architecture for each in found if each.fidelity == CHEAP] == cheap.evaluated
    assert [each.architecture for each in found if each.fidelity == 1] == dear.evaluated
    assert cheap.evaluated
    assert dear.evaluated
    done = [count for count, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (4, 4)


@settings(max_examples=6, deadline=None)
@given(kept=st.floats(0, 1))
def test_a_search_that_chooses_fidelities_ends_alike_when_the_journal_was_cut_anywhere(
    tmp_path_factory, kept
):
    journal = tmp_path_factory.mktemp("search") / "journal.jsonl"
    whole = search(chooser(), SlowEvaluator(0), 3, journal, cheaper={CHEAP: SlowEvaluator(0)}, ahead=2)
    content = journal.read_bytes()
    journal.write_bytes(content[: int(kept * len(content))])
    assert (
        search(chooser(), SlowEvaluator(0), 3, journal, cheaper={CHEAP: SlowEvaluator(0)}, ahead=2) == whole
    )
    assert journal.read_bytes() == content


def test_a_journal_of_other_fidelities_belongs_to_another_search(tmp_path):
    journal = tmp_path / "journal.jsonl"
    search(chooser(), SlowEvaluator(0), 1, journal, cheaper={CHEAP: SlowEvaluator(0)})
    dearly = PredictorStrategy(constraints(), 0, initial=3)
    with pytest.raises(WorkFolderError, match="another search") as caught:
        search(dearly, SlowEvaluator(0), 1, journal)
    assert "at 0.25 of the cost" in caught.value.why


@pytest.mark.slow
def test_processes_evaluate_each_fidelity_as_this_one_does(tmp_path):
    cheaper = {CHEAP: SlowEvaluator(0)}
    here = search(chooser(), SlowEvaluator(0), 3, tmp_path / "here", cheaper=cheaper, ahead=2)
    make, _ = parse_pool("processes:2")
    there = search(chooser(), SlowEvaluator(0), 3, tmp_path / "there", cheaper=cheaper, ahead=2, pool=make)
    assert there == here
