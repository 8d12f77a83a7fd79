"""Machines, how to reach them, the runtimes on them, and how a latency is measured to be trusted."""
