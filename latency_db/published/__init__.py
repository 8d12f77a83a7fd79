"""Latencies that others published: read, screened, and kept apart from measurements."""

from latency_db.published.importers import import_table

__all__ = ["import_table"]
