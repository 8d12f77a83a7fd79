"""``lathe table``."""
