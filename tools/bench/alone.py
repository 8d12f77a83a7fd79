"""Lets other work of this machine go on only between measurements."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil

LOCK = Path("/tmp/lathe-device.lock")
LOOK_AGAIN_S = 1.0


@contextlib.contextmanager
def alone(names: Collection[str]) -> Iterator[None]:
    """Stop processes while the body runs, but for this one and those that it started.

    The machine's lock is held meanwhile, so none of them is stopped in a measurement of its own; the body
    needs another ``LATHE_STATE_DIR`` to measure.

    Args:
        names: of the processes, as the kernel tells them.
    """
    stopped: set[psutil.Process] = set()
    done = threading.Event()

    def stop_others() -> None:
        ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
        for process in psutil.process_iter(["name"]):
            if process.info["name"] in names and process.pid not in ours and process not in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    if os.getpid() not in {parent.pid for parent in process.parents()}:
                        process.suspend()
                        stopped.add(process)

    def keep_stopping() -> None:
        while not done.wait(LOOK_AGAIN_S):
            stop_others()

    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        watching = threading.Thread(target=keep_stopping)
        try:
            stop_others()
            watching.start()
            yield
        finally:
            done.set()
            watching.join()
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
