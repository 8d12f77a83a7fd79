"""Work that dies in the middle by SIGKILL, as when memory runs out: nothing is cleaned up."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

_LONGEST_S = 240


def run_until_killed(work: Callable[[Callable[[], None]], object]) -> None:
    """Run ``work`` in a fork, on one thread, until it calls what it is given, which is its death.

    Raises:
        AssertionError: it ended before, or did not come so far.
    """
    pid = os.fork()
    if pid == 0:
        try:
            import torch

            torch.set_num_threads(1)
            signal.alarm(_LONGEST_S)
            work(lambda: os.kill(os.getpid(), signal.SIGKILL))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
