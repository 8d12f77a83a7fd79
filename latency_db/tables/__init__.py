"""The latency table of a target, and how its rows come from stored and new measurements."""

from latency_db.tables.outcomes import BATCH, measured, stored
from latency_db.tables.package import Manifest, measure_package, write_package
from latency_db.tables.table import BlockTraits, LatencyTable, TableKey

__all__ = [
    "BATCH",
    "BlockTraits",
    "LatencyTable",
    "Manifest",
    "TableKey",
    "measure_package",
    "measured",
    "stored",
    "write_package",
]
