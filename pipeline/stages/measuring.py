"""From modules to measured workloads on several targets: exports are shared and made side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devices.measurement import MeasuringProtocol, Outcome, Reason
from devices.target import Target
from latency_db.store import Store, Workload
from latency_db.tables import measured, stored
from pipeline.export.base import Format, format_of
from pipeline.progress import Reporter
from pipeline.stages.services import Services

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """A workload with the module behind it, built when it has to be exported, and its input's shape."""

    workload: Workload
    build: Callable[[], nn.Module]
    shape: Shape


class Workplace(Protocol):
    """What measuring needs; ``Workbench`` is one."""

    @property
    def store(self) -> Store:
        """Where outcomes are found and kept."""
        ...

    @property
    def protocol(self) -> MeasuringProtocol:
        """How to measure."""
        ...

    @property
    def reporter(self) -> Reporter:
        """Where to tell of progress."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder for exports, gone in the end; what lies in it already is not exported again."""
        ...


@dataclass(frozen=True)
class Workbench:
    """The services of a run, and one protocol: a ``Workplace``."""

    services: Services
    protocol: MeasuringProtocol

    @property
    def store(self) -> Store:
        """The run's."""
        return self.services.store

    @property
    def reporter(self) -> Reporter:
        """The run's."""
        return self.services.reporter

    def scratch(self) -> AbstractContextManager[Path]:
        """On the disk of the work folder."""
        return self.services.scratch()


def measure_parts(
    context: Workplace,
    parts: Mapping[Target, Sequence[Part]],
    what: str,
    *,
    again: bool = False,
    deadline_s: float | None = None,
) -> dict[Target, dict[str, Outcome]]:
    """One outcome per part, by workload identity, on every target.

    What the database holds is neither exported nor measured. Everything else is exported first, all formats
    side by side, so that nothing disturbs the measurements that follow.

    Args:
        context: of the run.
        parts: what to measure, by target.
        what: the parts in a word, for progress lines.
        again: as of ``latency_db.tables.outcomes.measured``.
        deadline_s: as there; what is not measured by then has no outcome.
    """
    outcomes: dict[Target, dict[str, Outcome]] = {}
    wanted: dict[Format, dict[str, Part]] = {}
    for target, its_parts in parts.items():
        workloads = [] if again else [part.workload for part in its_parts]
        outcomes[target] = stored(workloads, target, store=context.store, protocol=context.protocol)
        for part in its_parts:
            if part.workload.identity not in outcomes[target]:
                wanted.setdefault(format_of(target), {})[part.workload.identity] = part
    if not wanted:
        return outcomes
    with context.scratch() as scratch:
        exports = _export(context, wanted, scratch, what)
        for target, its_parts in parts.items():
            files = exports.get(format_of(target), {})
            with context.reporter.task(f"measuring {what} on {target}", what) as advance:
                outcomes[target] = measured(
                    [part.workload for part in its_parts],
                    target,
                    store=context.store,
                    exporter=lambda batch, files=files: {w.identity: files[w.identity] for w in batch},  # type: ignore[misc]
                    protocol=context.protocol,
                    on_progress=advance,
                    again=again,
                    deadline_s=deadline_s,
                )
    return outcomes


def _export(
    context: Workplace, wanted: Mapping[Format, Mapping[str, Part]], folder: Path, what: str
) -> dict[Format, dict[str, Path | Reason]]:
    import torch

    from pipeline.export.blocks import export_modules

    torch.manual_seed(0)
    files = {
        fmt: {name: folder / fmt / f"{name}{fmt.suffix}" for name in parts} for fmt, parts in wanted.items()
    }
    modules = {
        fmt: {
            name: (part.build(), part.shape) for name, part in parts.items() if not files[fmt][name].exists()
        }
        for fmt, parts in wanted.items()
    }
    done = dict.fromkeys(wanted, 0)
    total = sum(map(len, modules.values()))
    if not total:
        return {fmt: dict(paths) for fmt, paths in files.items()}
    formats = " and ".join(wanted)
    with (
        context.reporter.task(f"exporting {what} to {formats}", what) as advance,
        ThreadPoolExecutor(len(wanted)) as pool,
    ):

        def export(fmt: Format) -> dict[str, Path | Reason]:
            def count(finished: int, _: int) -> None:
                done[fmt] = finished
                advance(sum(done.values()), total)

            return files[fmt] | export_modules(modules[fmt], fmt, folder / fmt, on_progress=count)

        return dict(zip(wanted, pool.map(export, wanted), strict=True))
