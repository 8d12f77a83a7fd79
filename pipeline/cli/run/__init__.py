"""``lathe run``, ``search``, ``verify`` and ``recipes``."""
