"""The command line: a room for each command or group of commands, all of one shape.

- ``arguments``: the options of a command and its help; it imports nothing heavy, as help imports it.
- ``command``: what the command does.
- ``text``: what it prints for people.
- ``documents``: what it prints with ``--json``, where the results do not say it themselves.
"""
