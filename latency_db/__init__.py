"""Measurements kept for ever, latency tables, and predictions that carry their own error."""
