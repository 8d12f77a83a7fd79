"""Device side: what runs on the machine that is measured. Python 3.8+, standard library, numpy, one runtime.

Nothing here imports the rest of the project: the files are pushed, ``agent.py`` is run, and it imports the
others from wherever they lie, as modules of one package. What the host has to know as well (the names of
execution providers, what a driver's readings mean) stands here once, and the host imports it.
"""
