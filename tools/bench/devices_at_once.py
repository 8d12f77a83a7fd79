"""Two devices at once beside one after the other.

    python tools/bench/devices_at_once.py DEVICE OTHER [ROUNDS [RUNTIME]]

Both are names of your devices.toml, with RUNTIME (onnxruntime). The blocks of the quickstart's space are
exported once, then measured on the first device, on the other, and on both, each time into a new database, in
another order each round. JSON: the seconds, and by round the time of both as a share of one after the other.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from devices.measurement import Measurement, MeasuringProtocol
from devices.target import Target
from latency_db.store import open_store
from pipeline.export.base import format_of
from pipeline.progress import SilentReporter
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.measuring import ModuleWorkload, measure
from pipeline.tables.building.space_table import table_workloads


def seconds(wanted: Sequence[ModuleWorkload], targets: Sequence[Target], folder: Path) -> float:
    """How long it takes until everything is measured on all targets."""
    with open_store(str(folder / f"{time.monotonic_ns()}.db")) as store:
        bench = Bench(store, MeasuringProtocol(), SilentReporter())
        began = time.monotonic()
        found = measure(bench, dict.fromkeys(targets, wanted), "blocks")
        took = time.monotonic() - began
    failed = [each for by in found.values() for each in by.values() if not isinstance(each, Measurement)]
    if failed:
        raise SystemExit(f"not measured: {failed[0]}")
    return took


def main() -> None:
    """Measure in rounds."""
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    runtime = sys.argv[4] if len(sys.argv) > 4 else "onnxruntime"
    targets = [Target(name, runtime) for name in sys.argv[1:3]]
    space = MobileSpace.from_config(None, (1, 8, 8), 10)
    wanted = table_workloads(space, format_of(targets[0]), 0)
    ways = {"one": targets[:1], "other": targets[1:], "both": targets}
    took: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        seconds(wanted, targets, Path(folder))  # Exports, and sends the files to both.
        for number in range(rounds):
            for name in random.Random(number).sample(list(ways), len(ways)):
                took[name].append(seconds(wanted, ways[name], Path(folder)))
    shares = [
        both / (one + other)
        for one, other, both in zip(took["one"], took["other"], took["both"], strict=True)
    ]
    document = {
        "blocks": len(wanted),
        "seconds": took,
        "share_of_one_after_the_other": shares,
        "median_share": statistics.median(shares),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
