"""Exports for a table that another machine measures."""

from __future__ import annotations

from pathlib import Path

from devices.measurement import MeasuringProtocol
from devices.target import Target
from latency_db.tables import WorkPackage, write_package
from pipeline.export.base import format_of
from pipeline.export.cached_exports import exported
from pipeline.progress import Reporter
from pipeline.spaces.base import Space
from pipeline.tables.building.space_table import table_workloads


def write_plan(
    folder: Path, space: Space, target: Target, *, networks: int, launches: int, reporter: Reporter
) -> WorkPackage:
    """Export the blocks of a space and its first calibration networks into a work package.

    What is in the cache of exports is not exported again.

    Raises:
        StoreError: the folder has something in it, or cannot be written.
        ExportError: the exporter is not installed.
    """
    fmt = format_of(target)
    parts = table_workloads(space, fmt, networks)
    wanted = {part.workload.identity: (part.build, part.shape) for part in parts}
    with exported({fmt: wanted}, "workloads", reporter) as exports:
        protocol = MeasuringProtocol(launches=launches)
        return write_package(folder, target, protocol, [part.workload for part in parts], exports[fmt])
