from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from pipeline.search.loop import search
from tests.pipeline.search.evaluators.score_processes import NumberEvaluator
from tests.pipeline.search.test_loop import CountingEvaluator, evolution


def processes():
    return ProcessPoolExecutor(2, mp_context=get_context("fork"))


@pytest.mark.parametrize("executor", [processes, lambda: ThreadPoolExecutor(3)])
def test_search_ends_alike_whatever_executor_rates(tmp_path, executor):
    alone = search(evolution(), NumberEvaluator(), 15, tmp_path / "alone.jsonl", ahead=3)
    assert alone == search(
        evolution(), NumberEvaluator(), 15, tmp_path / "j.jsonl", executor=executor, ahead=3
    )
    assert (tmp_path / "alone.jsonl").read_bytes() == (tmp_path / "j.jsonl").read_bytes()


def test_search_that_runs_ahead_continues_from_a_journal_cut_anywhere(tmp_path):
    journal = tmp_path / "journal.jsonl"
    whole = search(evolution(), NumberEvaluator(), 10, journal, ahead=4)
    content = journal.read_bytes()
    for lines in range(10):
        journal.write_bytes(b"".join(content.splitlines(keepends=True)[:lines]))
        assert search(evolution(), NumberEvaluator(), 10, journal, ahead=4) == whole
        assert journal.read_bytes() == content


def test_search_outlives_a_evaluator_that_ends_its_process(tmp_path):
    asked = [
        c.architecture.identity for c in search(evolution(), NumberEvaluator(), 8, tmp_path / "a", ahead=8)
    ]
    deadly = frozenset({asked[1], asked[4]})
    found = search(evolution(), NumberEvaluator(deadly), 8, tmp_path / "b", executor=processes, ahead=8)
    assert [candidate.architecture.identity for candidate in found] == asked
    assert [number for number, candidate in enumerate(found) if candidate.failure] == [1, 4]
    assert "was ended" in found[1].failure


def test_search_rates_once_what_is_asked_twice_at_the_same_time(tmp_path):
    class Stubborn:
        def ask(self):
            return evolution().constraints.certificate.anchor

        def tell(self, architecture, score):
            pass

    evaluator = CountingEvaluator()
    found = search(Stubborn(), evaluator, 6, tmp_path / "j", executor=lambda: ThreadPoolExecutor(3), ahead=3)
    assert (len(found), len(evaluator.evaluated)) == (6, 1)
