"""Tasks for other processes, some of which end the process they run in; without torch, to start fast."""

import os
import signal
import time
from pathlib import Path


def double(number: int) -> int:
    return 2 * number


def fail_once(path: Path) -> str:
    """End the process as the kernel does when memory runs out, but only the first time."""
    if not path.exists():
        path.touch()
        os._exit(137)
    return path.name


def fail_always(name: str) -> str:
    """End the process by the signal of this name."""
    os.kill(os.getpid(), signal.Signals[name])
    return name


def wait_or_fail(task: tuple[str, Path]) -> None:
    """One task says where it runs and waits for long; the other fails as soon as that has begun."""
    name, path = task
    if name == "wait":
        path.with_suffix(".part").write_text(str(os.getpid()))
        path.with_suffix(".part").rename(path)
        time.sleep(600)
    while not path.exists():
        time.sleep(0.01)
    raise ValueError("no use in going on")
