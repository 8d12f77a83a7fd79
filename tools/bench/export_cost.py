"""Time per block of a joint export, as JSON on standard output.

``python tools/bench/export_cost.py [BLOCKS]`` exports that many blocks (30) of the default 8x8 mobile space
to each format: wall seconds, and processor seconds of this process and its workers, which other work on the
machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.export.base import Format, exporter_versions
from pipeline.export.blocks import export_modules
from pipeline.spaces.mobile.space import MobileSpace


def cost(count: int, fmt: Format) -> dict[str, Any]:
    """Export ``count`` blocks to a folder that is thrown away."""
    space = MobileSpace.from_config(None, (1, 8, 8), 10)
    torch.manual_seed(0)
    blocks = space.distinct_blocks()[:count]
    modules = {block.identity: (space.build_block(block), block.input_shape) for block in blocks}
    before, start = os.times(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        files = export_modules(modules, fmt, Path(folder))
        failed = sum(not isinstance(file, Path) for file in files.values())
    wall_s, after = time.perf_counter() - start, os.times()
    processor_s = sum(after[:4]) - sum(before[:4])
    return {
        "format": fmt.value,
        "blocks": len(blocks),
        "failed": failed,
        "wall_s_per_block": round(wall_s / len(blocks), 3),
        "processor_s_per_block": round(processor_s / len(blocks), 3),
        "exporter": exporter_versions(fmt),
    }


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("blocks", type=int, nargs="?", default=30)
    count = parser.parse_args().blocks
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "load_1min": os.getloadavg()[0]}
    results = [cost(count, fmt) for fmt in Format]
    json.dump({**machine, "results": results}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
