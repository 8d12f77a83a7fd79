"""``lathe sign``."""
