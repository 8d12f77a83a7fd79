"""Blocks done side by side by processes, which may be lost."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from pipeline.methods.dna.errors import DnaError

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(run: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Yield the result of every task, in their order.

    A pool of processes breaks when one of them ends, for want of memory for example, and takes with it all
    that was going on. What was lost is done again, one task at a time.

    Args:
        run: does one task; should keep what it has done, so that it can be called again. It travels with the
            task by pickle to a process that is started anew, if there are several workers.
        tasks: to do.
        workers: processes; one is this thread.

    Raises:
        DnaError: a task ends the process that does it even when it runs alone, or cannot be sent to another.
    """
    if workers == 1:
        yield from map(run, tasks)
        return
    _check_sendable(tasks[0])
    with _pool(workers) as pool:
        futures = [pool.submit(run, task) for task in tasks]
        for number, (task, future) in enumerate(zip(tasks, futures, strict=True), start=1):
            try:
                result = future.result()
            except BrokenExecutor:
                result = _alone(run, task, number)
            yield result


def _alone(run: Callable[[Task], Result], task: Task, number: int) -> Result:
    with _pool(1) as pool:
        try:
            return pool.submit(run, task).result()
        except BrokenExecutor as error:
            raise DnaError(
                f"the process that worked on block {number} was ended",
                why=f"also when no other ran beside it; the memory may be too small ({error})",
                fix="lower score_images, calibration_images or batch_size; what is finished is kept",
            ) from error


def _check_sendable(task: object) -> None:
    try:
        pickle.dumps(task)
    except Exception as error:  # pickle raises many kinds
        raise DnaError(
            "the teacher cannot be sent to another process",
            why=f"{type(error).__name__}: {error}",
            fix="use one worker, as a network exported by torch.export needs",
        ) from error


def _pool(workers: int) -> ProcessPoolExecutor:
    # A forked child would inherit torch's threads in an unknown state.
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
