"""The latency table of a target, and how its rows come from stored and new measurements."""

from latency_db.tables.outcomes import (
    BATCH,
    Measurer,
    default_measurer,
    explain_missing,
    is_settled,
    measured,
    stored,
)
from latency_db.tables.package import WorkPackage, measure_package, write_package
from latency_db.tables.quiet import wait_for_quiet
from latency_db.tables.table import BlockSizes, LatencyTable, TableKey

__all__ = [
    "BATCH",
    "BlockSizes",
    "LatencyTable",
    "Measurer",
    "TableKey",
    "WorkPackage",
    "default_measurer",
    "explain_missing",
    "is_settled",
    "measure_package",
    "measured",
    "stored",
    "wait_for_quiet",
    "write_package",
]
