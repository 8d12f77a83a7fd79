"""The latency table of a target, and how its rows come from stored and new measurements."""

from latency_db.tables.outcomes import BATCH, measured, stored
from latency_db.tables.package import WorkPackage, measure_package, write_package
from latency_db.tables.table import BlockSizes, LatencyTable, TableKey

__all__ = [
    "BATCH",
    "BlockSizes",
    "LatencyTable",
    "TableKey",
    "WorkPackage",
    "measure_package",
    "measured",
    "stored",
    "write_package",
]
