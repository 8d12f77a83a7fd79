"""``lathe callers``."""
