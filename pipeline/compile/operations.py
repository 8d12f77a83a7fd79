"""Where the time of a variant goes, operation by operation: stage ``operations``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from devices.measurement import MeasuringProtocol
from devices.requests import OperationProfile, profile_operations
from devices.target import Target
from pipeline.compile.services import CompileServices
from pipeline.work.canonical import StoredFile
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class OperationsInput:
    """Which file, and where; ``identity`` is what stands behind the target now."""

    artifact: StoredFile
    target: Target
    identity: Any
    protocol: MeasuringProtocol


@stage("operations")
def time_operations(
    given: OperationsInput, folder: StageFolder, services: CompileServices
) -> OperationProfile:
    """Profile one file in a run of its own.

    Raises:
        MeasurementError: the runtime has no profiler, or the run failed.
        TargetError: the target cannot be reached.
    """
    services.reporter.note(f"  profiling the operations on {given.target}")
    return profile_operations(folder.find(given.artifact), given.target, given.protocol)
