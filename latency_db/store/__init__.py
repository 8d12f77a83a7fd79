"""Measurements kept for ever, found again by content: the database, its schema, and ways in and out."""

from latency_db.store.contents import Info, PublishedTable, info
from latency_db.store.exchange import export_file, export_published, import_file
from latency_db.store.keys import Key, Workload, kind_of_device
from latency_db.store.maintenance import check, clear, merge
from latency_db.store.published import published_rows
from latency_db.store.reading import Filter, Record, records
from latency_db.store.store import Store, open_store

__all__ = [
    "Filter",
    "Info",
    "Key",
    "PublishedTable",
    "Record",
    "Store",
    "Workload",
    "check",
    "clear",
    "export_file",
    "export_published",
    "import_file",
    "info",
    "kind_of_device",
    "merge",
    "open_store",
    "published_rows",
    "records",
]
