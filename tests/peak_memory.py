"""How far a piece of work raises the peak of resident memory: in a new process, where nothing hides it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from devices.agent.machine import peak_memory_bytes


def grown_bytes(work: Callable[..., Any], *arguments: Any) -> int:
    """By how much ``work(*arguments)`` raises the peak; its module is imported before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_grown_bytes, work, arguments).result()


def _grown_bytes(work: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    before = peak_memory_bytes()
    work(*arguments)
    return peak_memory_bytes() - before
