"""What libraries do for variants, each function in a process of its own, see ``pipeline.compile.child``."""
