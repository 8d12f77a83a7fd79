"""Runtimes by their makers' command-line tools, for devices without Python."""
