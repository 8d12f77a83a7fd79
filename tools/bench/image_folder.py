"""Preparing a folder of photographs: ``python tools/bench/image_folder.py [COUNT [SIZE]]``, as JSON.

COUNT (5000) made-up JPEGs of 256x256 are decoded and resized to SIZE (64) as a run does it. The peaks are of
memory that the kernel cannot take back, above that of the start; pages of the image file in the page cache
are not in them. Then shuffled batches are made, as training reads them and without the training, in turn from
the file and from an array in memory; ``ratio`` is the median of the pairs.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from pipeline.data import DataConfig, Dataset, Split
from pipeline.data.loading import load
from pipeline.data.tensors import to_tensor

PIXELS, PAIRS, BATCH = 256, 5, 128


def write_photographs(folder: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class {number % 10}"
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(generator.integers(0, 256, (24, 24, 3), np.uint8))
        large = np.asarray(small.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(large + generator.integers(-12, 13, large.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(place / f"{number:06}.jpg", quality=85)


def anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


@contextmanager
def peak() -> Iterator[list[float]]:
    """The most anonymous memory since the start, looked at every 20 ms."""
    before, found, ended = anonymous_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            found[0] = max(found[0], anonymous_mb() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def epoch_s(split: Split, dataset: Dataset, seed: int) -> float:
    order = np.random.default_rng(seed).permutation(len(split))
    started = time.perf_counter()
    for start in range(0, len(split), BATCH):
        to_tensor(split.images[order[start : start + BATCH]], dataset.preprocessing)
    return time.perf_counter() - started


def main(count: int, size: int) -> None:
    with TemporaryDirectory(prefix="lathe-bench-") as temporary:
        folder, stage = Path(temporary) / "photographs", Path(temporary) / "stage"
        stage.mkdir()
        write_photographs(folder, count)
        config = DataConfig(kind="folder", path=folder, image_size=size)
        started, cpu = time.perf_counter(), time.process_time()
        with peak() as preparing:
            dataset = load(config, seed=0, folder=stage)
        took_s, took_cpu_s = time.perf_counter() - started, time.process_time() - cpu
        with peak() as mapped:
            epoch_s(dataset.train, dataset, 0)
        in_memory = Split(np.array(dataset.train.images), dataset.train.labels)
        pairs = []
        for seed in range(PAIRS):
            first, second = (dataset.train, in_memory)[:: 1 if seed % 2 else -1]
            times = epoch_s(first, dataset, seed), epoch_s(second, dataset, seed)
            pairs.append(times[:: 1 if seed % 2 else -1])
    print(
        json.dumps(
            {
                "images": count,
                "size": size,
                "images_per_s": round(count / took_s, 1),
                "images_per_cpu_s": round(count / took_cpu_s, 1),
                "preparing_peak_anon_mb": round(preparing[0], 1),
                "epoch_peak_anon_mb": round(mapped[0], 1),
                "epoch_s": {
                    "file": round(statistics.median(file for file, _ in pairs), 3),
                    "memory": round(statistics.median(memory for _, memory in pairs), 3),
                    "ratio": round(statistics.median(file / memory for file, memory in pairs), 3),
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    main(*given, *[5000, 64][len(given) :])
