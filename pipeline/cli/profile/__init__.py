"""``lathe profile`` and ``lathe compare``."""
