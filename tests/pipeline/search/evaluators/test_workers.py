from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pipeline.distill.settings import DistillationSettings
from pipeline.search.evaluators.short_training import DistillationEvaluator
from pipeline.search.evaluators.workers import InProcess, Processes, evaluated, parse_pool
from pipeline.search.loop import search
from tests.pipeline.search.evaluators.score_processes import NumberEvaluator
from tests.pipeline.search.search_models import small_space
from tests.pipeline.search.test_loop import CountingEvaluator, evolution


class Threads:
    """A pool of threads, as another kind of pool may be."""

    def __init__(self, evaluator):
        self._evaluator, self._executor = evaluator, ThreadPoolExecutor(3)

    def submit(self, architecture):
        return self._executor.submit(evaluated, self._evaluator, architecture)

    def close(self):
        self._executor.shutdown()


def processes(evaluator):
    return Processes(evaluator, 2)


@pytest.mark.parametrize("pool", [processes, Threads])
def test_search_ends_alike_whatever_pool_evaluates(tmp_path, pool):
    alone = search(evolution(), NumberEvaluator(), 15, tmp_path / "alone.jsonl", ahead=3)
    assert alone == search(evolution(), NumberEvaluator(), 15, tmp_path / "j.jsonl", pool=pool, ahead=3)
    assert (tmp_path / "alone.jsonl").read_bytes() == (tmp_path / "j.jsonl").read_bytes()


@pytest.mark.slow
def test_short_trainings_in_processes_of_one_thread_score_as_one_thread_here(tmp_path, dataset):
    def trained(journal, pool):
        settings = DistillationSettings(epochs=1, batch_size=32)
        evaluator = DistillationEvaluator(small_space(), dataset, None, settings, 0)
        return search(evolution(), evaluator, 3, tmp_path / journal, pool=pool, ahead=2)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert trained("here.jsonl", InProcess) == trained("there.jsonl", processes)
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "here.jsonl").read_bytes() == (tmp_path / "there.jsonl").read_bytes()


def test_pools_are_named_in_words_and_what_means_none_is_refused():
    pool, at_a_time = parse_pool("processes:3")
    assert at_a_time == 3
    pool(NumberEvaluator()).close()
    assert parse_pool("in-process") == (InProcess, 1)
    for text in ("", "processes", "processes:0", "processes:-1", "processes:2x", "threads:2"):
        with pytest.raises(ValueError, match="processes:2"):
            parse_pool(text)


def test_search_that_runs_ahead_continues_from_a_journal_cut_anywhere(tmp_path):
    journal = tmp_path / "journal.jsonl"
    whole = search(evolution(), NumberEvaluator(), 10, journal, ahead=4)
    content = journal.read_bytes()
    for lines in range(10):
        journal.write_bytes(b"".join(content.splitlines(keepends=True)[:lines]))
        assert search(evolution(), NumberEvaluator(), 10, journal, ahead=4) == whole
        assert journal.read_bytes() == content


def test_search_outlives_an_evaluator_that_ends_its_process(tmp_path):
    asked = [
        c.architecture.identity for c in search(evolution(), NumberEvaluator(), 8, tmp_path / "a", ahead=8)
    ]
    deadly = frozenset({asked[1], asked[4]})
    found = search(evolution(), NumberEvaluator(deadly), 8, tmp_path / "b", pool=processes, ahead=8)
    assert [candidate.architecture.identity for candidate in found] == asked
    assert [number for number, candidate in enumerate(found) if candidate.failure] == [1, 4]
    assert "was ended" in found[1].failure


def test_search_evaluates_once_what_is_asked_twice_at_the_same_time(tmp_path):
    class Stubborn:
        def ask(self):
            return evolution().constraints.certificate.anchor

        def tell(self, architecture, score):
            pass

    evaluator = CountingEvaluator()
    found = search(Stubborn(), evaluator, 6, tmp_path / "j", pool=Threads, ahead=3)
    assert (len(found), len(evaluator.evaluated)) == (6, 1)
