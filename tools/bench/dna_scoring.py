"""Time to score every path of one DNA block, with shared beginnings and path by path, as JSON.

python tools/bench/dna_scoring.py [REPEATS]

The block has 4 layers of 6 operations: 1296 paths, whose layers run 1554 times if beginnings are shared and
5184 times if not. Weights and images are made up; both ways score the same paths and must agree.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from statistics import median

import numpy as np
import torch

from pipeline.methods.dna.features import ScoreSet, standard_deviation
from pipeline.methods.dna.scoring import score_paths
from pipeline.methods.dna.supernet import Supernet, cell_supernet
from pipeline.spaces.dna.config import CellConfig, DnaBlockConfig, DnaSpaceConfig
from pipeline.spaces.dna.space import DnaSpace

TEACHER_CHANNELS, SIZE = 24, 8
CALIBRATION, SCORE = 16, 32


def score_alone(supernet: Supernet, path: tuple[int, ...], images: ScoreSet) -> float:
    alone = Supernet([[module] for module in supernet.path_modules(path)])
    return score_paths(alone, images).item()


def main(repeats: int = 3) -> None:
    torch.manual_seed(0)
    block = DnaBlockConfig(
        cells=(CellConfig(depth=4, width=16),), stride=1, kernels=(3, 5, 7), expansions=(3, 6)
    )
    space = DnaSpace(DnaSpaceConfig(stem_width=8, head_width=8, blocks=(block, block)), (3, SIZE, SIZE), 10)
    shape = (TEACHER_CHANNELS, SIZE, SIZE)
    supernet = cell_supernet(space, 1, block.cells[0], shape, shape)
    targets = (torch.randn(SCORE, *shape),)
    images = ScoreSet(
        (torch.randn(CALIBRATION, *shape),),
        (torch.randn(SCORE, *shape),),
        targets,
        standard_deviation(targets),
    )
    runs = 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    for layer in supernet.candidates():
        for module in layer:
            module.register_forward_hook(count)
    paths = list(itertools.product(*map(range, supernet.choices)))
    shared_s, single_s, evaluations, difference = [], [], {}, 0.0
    for _ in range(repeats):
        runs, started = 0, time.perf_counter()
        shared = score_paths(supernet, images)
        shared_s.append(time.perf_counter() - started)
        evaluations["shared"] = runs // 2  # each module runs for calibration and for score
        runs, started = 0, time.perf_counter()
        single = np.array([score_alone(supernet, path, images) for path in paths])
        single_s.append(time.perf_counter() - started)
        evaluations["path by path"] = runs // 2
        difference = max(difference, float(np.abs(shared.ravel() - single).max()))
    document = {
        "paths": len(paths),
        "layer_evaluations": evaluations,
        "shared_s": round(median(shared_s), 3),
        "path_by_path_s": round(median(single_s), 3),
        "ratio": round(median(single / shared for single, shared in zip(single_s, shared_s, strict=True)), 2),
        "largest_difference": difference,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
