"""``lathe recipes``."""
