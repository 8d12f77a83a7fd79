"""``lathe run`` and ``lathe search``."""
