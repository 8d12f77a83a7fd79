"""The runtimes that targets may name."""

from __future__ import annotations

from devices.errors import TargetError
from devices.runtimes.base import Runtime
from devices.runtimes.litert import LITERT
from devices.runtimes.onnxruntime import ONNXRUNTIME

__all__ = ["RUNTIMES", "Runtime", "find_runtime"]

RUNTIMES: tuple[Runtime, ...] = (ONNXRUNTIME, LITERT)


def find_runtime(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        TargetError: no such runtime; the known ones are listed.
    """
    for runtime in RUNTIMES:
        if runtime.name == name:
            return runtime
    known = ", ".join(runtime.name for runtime in RUNTIMES)
    raise TargetError(
        f"there is no runtime '{name}'", why=f"known runtimes are {known}", fix="choose one of them"
    )
