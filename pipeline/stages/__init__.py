"""The stages of a run, in the order of ``pipeline/run.py``; each hands one frozen value to the next."""
