"""Exports for a table that another machine measures."""

from __future__ import annotations

from pathlib import Path

from devices.host import temporary_folder
from devices.measurement import MeasuringProtocol
from devices.target import Target
from latency_db.tables import WorkPackage, write_package
from pipeline.export.base import format_of
from pipeline.progress import Reporter
from pipeline.spaces.base import Space
from pipeline.tables.building import table_workloads


def write_plan(
    folder: Path, space: Space, target: Target, *, networks: int, launches: int, reporter: Reporter
) -> WorkPackage:
    """Export the blocks of a space and its first calibration networks into a work package.

    Raises:
        StoreError: the folder has something in it, or cannot be written.
        ExportError: the exporter is not installed.
    """
    import torch

    from pipeline.export.blocks import export_modules

    fmt = format_of(target)
    parts = table_workloads(space, fmt, networks)
    torch.manual_seed(0)
    modules = {part.workload.identity: (part.build(), part.shape) for part in parts}
    with (
        temporary_folder("plan") as scratch,
        reporter.task(f"exporting to {fmt}", "workloads") as advance,
    ):
        artifacts = export_modules(modules, fmt, scratch, on_progress=advance)
        protocol = MeasuringProtocol(launches=launches)
        return write_package(folder, target, protocol, [part.workload for part in parts], artifacts)
