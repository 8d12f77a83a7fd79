"""``lathe verify``."""
