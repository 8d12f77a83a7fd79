"""One module per kind of source; each has ``read`` and hands over a ``Source``."""
