"""Which quantile of a launch repeats best, as JSON: ``python tools/bench/headline.py [REPEATS]``.

Blocks of the default 8x8 and 28x28 mobile spaces are measured REPEATS times (10), one batch after the other,
on both runtimes of this host. From the raw samples the headline (median over launches) is computed for
several quantiles; reported is how far it moves between neighbouring repeats: median and 95th percentile of
the relative differences over all blocks. Run it on an idle machine and on a busy one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from devices.measure import Job, measure
from devices.measurement import Measurement, MeasuringProtocol, Verdict
from devices.statistics import quantile
from devices.target import Target
from pipeline.export.base import format_of
from pipeline.export.blocks import export_modules
from pipeline.spaces.mobile import MobileSpace

LEVELS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.9)
BLOCKS_PER_SPACE = 6


def jobs_for(target: Target, folder: Path) -> list[Job]:
    """Blocks spread over two spaces, as files of the target's format."""
    modules = {}
    for shape in ((1, 8, 8), (1, 28, 28)):
        space = MobileSpace.from_config(None, shape, 10)
        blocks = space.distinct_blocks()
        for block in blocks[:: len(blocks) // BLOCKS_PER_SPACE][:BLOCKS_PER_SPACE]:
            modules[block.identity] = (space.build_block(block), block.input_shape)
    files = export_modules(modules, format_of(target), folder)
    return [Job(name, path) for name, path in files.items() if isinstance(path, Path)]


def headline(measurement: Measurement, level: float) -> float:
    return quantile([quantile(launch.samples_ns, level) for launch in measurement.launches], 0.5)


def moves(history: Sequence[Sequence[Measurement]], level: float) -> dict[str, float]:
    """Relative differences between neighbouring repeats, over all blocks."""
    found = [
        abs(headline(second, level) / headline(first, level) - 1.0)
        for repeats in history
        for first, second in pairwise(repeats)
    ]
    return {
        "median": round(quantile(found, 0.5), 4),
        "p95": round(quantile(found, 0.95), 4),
        "pairs": len(found),
    }


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    report = []
    for runtime in ("onnxruntime", "litert"):
        target = Target("host", runtime)
        with tempfile.TemporaryDirectory() as folder:
            jobs = jobs_for(target, Path(folder))
            batches = [measure(jobs, target, MeasuringProtocol()) for _ in range(repeats)]
        history = [
            [outcome for batch in batches if isinstance(outcome := batch[job.name], Measurement)]
            for job in jobs
        ]
        valid = [m.verdict is Verdict.VALID for repeats_of_one in history for m in repeats_of_one]
        report.append(
            {
                "target": str(target),
                "blocks": len(jobs),
                "repeats": repeats,
                "valid_share": round(sum(valid) / len(valid), 3),
                "difference_between_repeats": {str(level): moves(history, level) for level in LEVELS},
            }
        )
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
