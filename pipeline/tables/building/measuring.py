"""From modules to measured workloads on several targets: exports are shared and made side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from devices.measurement import Outcome
from devices.measuring import GoingOn, side_by_side
from devices.target import Target
from latency_db.store import Workload
from latency_db.tables import measured, stored
from pipeline.export.base import Format, format_of
from pipeline.tables.building.bench import Bench

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class ModuleWorkload:
    """A workload with the module behind it, built when it has to be exported, and its input's shape."""

    workload: Workload
    build: Callable[[], nn.Module]
    shape: Shape


def measure(
    bench: Bench,
    wanted: Mapping[Target, Sequence[ModuleWorkload]],
    what: str,
    *,
    again: bool = False,
    deadline_s: float | None = None,
) -> dict[Target, dict[str, Outcome]]:
    """One outcome for each of them, by workload identity, on every target.

    What the database holds is neither exported nor measured. Everything else is exported first, all formats
    side by side, so that nothing disturbs the measurements that follow. Devices then measure side by side,
    this machine after them.

    Args:
        bench: where.
        wanted: what to measure, by target.
        what: these in a word, for progress lines.
        again: as of ``latency_db.tables.measured``.
        deadline_s: as there; what is not measured by then has no outcome.

    Raises:
        TargetError, MeasurementError: a target cannot be reached or measured on.
        ExportError: an exporter is not installed.
    """
    outcomes: dict[Target, dict[str, Outcome]] = {}
    absent: dict[Format, dict[str, ModuleWorkload]] = {}
    for target, each_wanted in wanted.items():
        outcomes[target] = {} if again else look_up(bench, target, [each.workload for each in each_wanted])
        for each in each_wanted:
            if each.workload.identity not in outcomes[target]:
                absent.setdefault(format_of(target), {})[each.workload.identity] = each
    if not absent:
        return outcomes
    exportable = {
        fmt: {name: (each.build, each.shape) for name, each in parts.items()} for fmt, parts in absent.items()
    }
    with bench.export(exportable, what, bench.reporter) as exports:

        def measure_on(target: Target, going_on: GoingOn) -> dict[str, Outcome]:
            files = exports.get(format_of(target), {})
            with bench.reporter.task(f"measuring {what} on {target}", what) as advance:

                def progress(done: int, total: int) -> None:
                    going_on()
                    advance(done, total)

                return measured(
                    [each.workload for each in wanted[target]],
                    target,
                    store=bench.store,
                    exporter=lambda batch: {each.identity: files[each.identity] for each in batch},
                    protocol=bench.protocol,
                    on_progress=progress,
                    on_state=bench.reporter.note,
                    measurer=bench.measurer,
                    again=again,
                    deadline_s=deadline_s,
                )

        work = {target: partial(measure_on, target) for target in wanted}
        return side_by_side(work, bench.reporter.note)


def look_up(
    bench: Bench, target: Target, workloads: Sequence[Workload], *, disturbed: bool = False
) -> dict[str, Outcome]:
    """What is stored of these workloads on a target, by identity; see ``latency_db.tables.stored``."""
    return stored(
        workloads,
        target,
        store=bench.store,
        protocol=bench.protocol,
        measurer=bench.measurer,
        disturbed=disturbed,
    )
