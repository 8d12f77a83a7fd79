"""A pool beside one of its members.

    python tools/bench/pool.py POOL [FILES [ROUNDS]]

POOL is one of your devices.toml, with LiteRT's benchmark_model: phones, or ``tools/stand_in_phones.py``. So
many files are measured by its first member and by all, in another order each round. JSON: the seconds, and by
round how long the pool takes as a share of the one. A file is the canary, with bytes behind it that nothing
reads.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from devices.check import CANARIES
from devices.inventory import members_of
from devices.measurement import Measurement, MeasuringProtocol
from devices.measuring import Job, measure
from devices.target import Target


def main() -> None:
    """Measure in rounds."""
    pool = sys.argv[1]
    files = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    ways = {"one": Target(members_of(pool)[0], "litert"), "pool": Target(pool, "litert")}
    took: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for number in range(files):
            path = Path(folder) / f"{number}.tflite"
            path.write_bytes((CANARIES / "canary.tflite").read_bytes() + bytes([number % 256]) * (number + 1))
            jobs.append(Job(path.name, path))
        for target in ways.values():  # Sends the files, and sees who takes part.
            measure(jobs, target, MeasuringProtocol(launches=1, max_launches=1))
        for number in range(rounds):
            for name in random.Random(number).sample(list(ways), len(ways)):
                began = time.monotonic()
                found = measure(jobs, ways[name], MeasuringProtocol())
                took[name].append(time.monotonic() - began)
                if not all(isinstance(each, Measurement) for each in found.values()):
                    raise SystemExit(f"not measured: {found}")
    shares = [pool / one for one, pool in zip(took["one"], took["pool"], strict=True)]
    document = {"members": members_of(pool), "files": files, "seconds": took, "share_of_one": shares}
    print(json.dumps({**document, "median_share": statistics.median(shares)}, indent=1))


if __name__ == "__main__":
    main()
