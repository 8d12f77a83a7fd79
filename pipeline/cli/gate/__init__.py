"""``lathe gate``."""
