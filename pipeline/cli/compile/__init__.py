"""``lathe compile``."""
