"""Writes measurements from several processes: ``store_writers.py DATABASE WRITERS ROWS [MAX_FILE_BYTES]``.

Prints a line after every row that ``add`` reported as stored, and the message of a store error.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

from latency_db.errors import StoreError
from latency_db.store.store import open_store
from tests.latency_db.measurement_samples import DEVICE, PROTOCOL, RUNTIME, block, measurement


def write(path: str, writer: int, rows: int) -> None:
    with open_store(path) as store:
        for row in range(rows):
            workload = block(f"{writer}/{row}")
            store.add(workload, RUNTIME, DEVICE, PROTOCOL, measurement(latency_ns=row + 1))
            os.write(1, f"stored {writer}/{row}\n".encode())


def main(path: str, writers: int, rows: int, max_file_bytes: int | None = None) -> int:
    if max_file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    children = []
    for writer in range(writers):
        child = os.fork()
        if child == 0:
            try:
                write(path, writer, rows)
            except StoreError as error:
                os.write(1, f"{error}\n".encode())
                os._exit(error.exit_code)
            os._exit(0)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
