"""Tables as files: to hand on, to compare, and to have measured elsewhere."""
