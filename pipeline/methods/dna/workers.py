"""Blocks done side by side by processes, which may be lost."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

from devices.host import check_interruption, end_with_parent
from pipeline.methods.dna.errors import DnaError

Task = TypeVar("Task")
Result = TypeVar("Result")

# A forked child would inherit torch's threads in an unknown state.
_SPAWN = get_context("spawn")


def run_tasks(run: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Yield the result of every task, in their order.

    A pool of processes breaks when one of them ends, for want of memory for example, and takes with it all
    that was going on. What was lost is done again, one task at a time. An error of a task ends the others.

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
    with ProcessPoolExecutor(workers, mp_context=_SPAWN, initializer=end_with_parent) as pool:
        with _without_interrupts():
            futures = [pool.submit(run, task) for task in tasks]
        try:
            for number, (task, future) in enumerate(zip(tasks, futures, strict=True), start=1):
                try:
                    result = _result(future, futures)
                except BrokenExecutor:
                    check_interruption()
                    result = _alone(run, task, number)
                yield result
        except BaseException:
            _end(pool)
            raise


def _result(future: Future[Result], futures: Sequence[Future[Result]]) -> Result:
    """Of one task, unless another fails before."""
    pending = set(futures)
    while not future.done():
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        error = next((error for each in done if (error := each.exception()) is not None), None)
        if error is not None:
            raise error
    return future.result()


def _end(pool: ProcessPoolExecutor) -> None:
    """At once, whatever its processes do: nobody waits for it any more."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
        process.join()


def _alone(run: Callable[[Task], Result], task: Task, number: int) -> Result:
    """In a process of its own: a pool does not say how its processes ended."""
    receiver, sender = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_deliver, args=(sender, run, task))
    with _without_interrupts():
        process.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        process.join()
        check_interruption()
        raise _ended(number, process.exitcode or 0) from None
    process.join()
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _deliver(sender: Connection, run: Callable[[Task], Result], task: Task) -> None:
    end_with_parent()
    try:
        sender.send((run(task), None))
    except Exception as error:  # whatever it is, it is raised where the result was waited for
        sender.send((None, error))


def _ended(number: int, exit_code: int) -> DnaError:
    how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
    if exit_code == -signal.SIGKILL:
        return DnaError(
            f"the process that worked on block {number} was ended {how}",
            why="also when no other ran beside it; the memory may be too small",
            fix="lower score_images, calibration_images or batch_size; what is finished is kept",
        )
    return DnaError(
        f"the process that worked on block {number} was ended {how}",
        why="also when no other ran beside it; torch or a library below it failed",
        fix="run the same command again, which continues from the last epoch; if it ends there again, "
        "change batch_size",
    )


def _check_sendable(task: object) -> None:
    try:
        pickle.dumps(task)
    except Exception as error:  # pickle raises many kinds
        raise DnaError(
            "the teacher cannot be sent to another process",
            why=f"{type(error).__name__}: {error}",
            fix="use one worker, as a network exported by torch.export needs",
        ) from error


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C does not reach the processes that are started inside: their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
