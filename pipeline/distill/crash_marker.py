"""Tells that a training died without a word: by a signal, for want of memory, or with the machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.work.disk import write_atomically

Tell = Callable[[str], None]
"""Takes one line for the person."""


@contextmanager
def told_next_time(checkpoint: Path, phase: str, tell: Tell) -> Iterator[None]:
    """Leave a marker beside ``checkpoint`` that only a sudden death leaves behind; tell of one that is there.

    An exception removes the marker, Ctrl-C included: whoever raised it says what happened.

    Args:
        checkpoint: of the training; not read.
        phase: what is trained, in words.
        tell: is called when the last process that trained this died in the middle.
    """
    marker = checkpoint.with_name(checkpoint.name + ".running")
    if marker.exists():
        tell(f"{_last_words(marker)}; {_what_now(checkpoint)}")
    here = {"pid": os.getpid(), "phase": phase, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    write_atomically(marker, json.dumps(here).encode())
    try:
        yield
    finally:
        marker.unlink(missing_ok=True)


def _last_words(marker: Path) -> str:
    try:
        last = json.loads(marker.read_text("utf-8"))
        who = f"{last['phase']} (process {last['pid']}, since {last['since']})"
    except (ValueError, KeyError, TypeError):
        who = "the last training"
    return f"{who} died in the middle, ended by a signal, for want of memory or with the machine"


def _what_now(checkpoint: Path) -> str:
    return (
        "it continues from its last epoch"
        if checkpoint.exists()
        else "it starts again, no epoch was finished"
    )
