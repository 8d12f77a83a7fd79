"""Where tables are measured and kept."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from devices.measurement import MeasuringProtocol
from latency_db.store import Store
from latency_db.tables import Measurer, default_measurer
from pipeline.export.base import Format
from pipeline.export.cached_exports import Exportable, Exports, exported
from pipeline.progress import Reporter


class Exporting(Protocol):
    """What makes files of modules; ``pipeline.export.cached_exports.exported`` is one."""

    def __call__(
        self, wanted: Mapping[Format, Mapping[str, Exportable]], what: str, reporter: Reporter, /
    ) -> AbstractContextManager[Exports]:
        """Files of modules by format and identity, while the context lasts."""
        ...


@dataclass(frozen=True)
class Bench:
    """What measuring needs.

    Attributes:
        store: where outcomes are found and kept.
        protocol: how to measure; runtimes follow it as far as they can.
        reporter: where to tell of progress.
        measurer: measures on targets; the devices themselves, but for tests.
        export: makes files of modules; the exporters themselves, but for tests.
    """

    store: Store
    protocol: MeasuringProtocol
    reporter: Reporter
    measurer: Measurer = field(default_factory=default_measurer)
    export: Exporting = exported
