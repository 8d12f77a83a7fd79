"""Latencies of networks from a table's model."""
