"""The runtimes that targets may name."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint

from devices.added import added, loaded, owner_of
from devices.agent.dispatch import dispatch_library, environment_of, made_for
from devices.errors import TargetError
from devices.runtimes.agent_runtime import AgentRuntime
from devices.runtimes.base import Runtime
from devices.runtimes.capabilities import Capabilities, Support
from devices.runtimes.native.benchmark_model import BENCHMARK_MODEL
from devices.runtimes.native.perf_test import PERF_TEST
from devices.runtimes.native.trtexec import TRTEXEC
from devices.runtimes.python_runtimes import (
    EXECUTORCH,
    LITERT,
    ONNXRUNTIME,
    OPENVINO,
    TENSORRT,
    TFLITE_RUNTIME,
    TORCH,
)

__all__ = [
    "RUNTIMES",
    "AgentRuntime",
    "Capabilities",
    "Runtime",
    "Support",
    "dispatch_library",
    "environment_of",
    "find_runtime",
    "known_runtimes",
    "made_for",
]

RUNTIMES: tuple[Runtime, ...] = (
    ONNXRUNTIME,
    OPENVINO,
    LITERT,
    TFLITE_RUNTIME,
    EXECUTORCH,
    TORCH,
    TENSORRT,
    TRTEXEC,
    BENCHMARK_MODEL,
    PERF_TEST,
)

ENTRY_POINTS = "lathe.runtimes"
"""Group of entry points by which other distributions add runtimes; each names a ``Runtime``."""


def known_runtimes() -> tuple[Runtime, ...]:
    """Lathe's own runtimes and those of other installed distributions.

    Raises:
        TargetError: a distribution names a runtime that cannot be loaded.
    """
    return (*RUNTIMES, *_added_runtimes())


@functools.cache
def _added_runtimes() -> tuple[Runtime, ...]:
    return tuple(loaded(entry, Runtime, _unusable(entry)) for entry in added(ENTRY_POINTS))


def _unusable(entry: EntryPoint) -> TargetError:
    owner = owner_of(entry)
    return TargetError(
        f"the runtime '{entry.name}' of {owner} cannot be used", fix=f"repair or uninstall {owner}"
    )


def find_runtime(name: str, *, native: bool = False) -> Runtime:
    """The runtime of that name.

    Args:
        name: as in targets.
        native: its makers' command-line tool instead of the agent, as on a device without Python.

    Raises:
        TargetError: no such runtime; the known ones are listed.
    """
    for runtime in known_runtimes():
        if runtime.name == name and runtime.needs_python != native:
            return runtime
    known = ", ".join(runtime.name for runtime in known_runtimes() if runtime.needs_python != native)
    where = "without Python" if native else "with Python"
    raise TargetError(
        f"there is no runtime '{name}' for a device {where}",
        why=f"known ones are {known or 'none'}",
        fix="choose one of them",
    )
