"""Work that dies in the middle by SIGKILL, as when memory runs out: nothing is cleaned up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context

_LONGEST_S = 240


def die() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def run_until_killed(work: Callable[[], object]) -> None:
    """Run ``work`` in a process of its own, on one thread, until it calls ``die``.

    The process is forked from one that has imported torch and done nothing: once a process has trained on
    threads, its own forks cannot.

    Args:
        work: travels by pickle.

    Raises:
        AssertionError: it ended before, or did not come so far.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    process = context.Process(target=_run, args=(work,))
    process.start()
    process.join(_LONGEST_S)
    ended = process.exitcode
    process.kill()
    assert ended == -signal.SIGKILL


def _run(work: Callable[[], object]) -> None:
    import torch

    torch.set_num_threads(1)
    work()
