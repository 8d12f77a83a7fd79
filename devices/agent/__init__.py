"""Device side: what runs on the machine that is measured. Python 3.8+, standard library, numpy, one runtime.

Nothing here imports the rest of the project, and nothing imports this: the files are pushed, ``agent.py`` is
run, and it imports the others from wherever they lie, as modules of one package.
"""
