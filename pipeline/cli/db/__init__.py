"""``lathe db``."""
