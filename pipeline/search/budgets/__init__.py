"""Latency budgets on a space: what it can reach, and who is within."""
