"""``lathe devices``."""
