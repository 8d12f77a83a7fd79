"""Rates the networks of NAS-Bench-201 without training any of them, and keeps the ratings as data.

python tools/studies/cell_ratings.py [--ratings naswot,synflow,relation,readout,blockwise] [--images 5200]
    [--most 6000] [--work FOLDER] [--out docs/results/raters/ratings.npz]

The networks are those of the cells, in the benchmark's skeleton with one cell a stage; of cells that the
benchmark calls isomorphic the first one is rated, and its ratings are those of all. Images are of CIFAR-10
(JPEG), the teacher is a ResNet-56 as others trained it. Lathe's untrained evaluators need nothing else. Its
block-wise and one-shot evaluators first train the weights that all cells share, with as many images.

Reads $LATHE_SHARED_DATA. FOLDER keeps weights and a line for each cell, and a study that was ended goes on.
The file has, for every cell in the order of ``Cell.number``, a column for each rating (not a number where
there is none), and the core-seconds that one cell takes and that the shared weights took. They come in a
random order, so that what is there at any time is a fair sample. Ratings that are not asked for stay as they
are in the file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cell_networks import CellNetworks, is_connected
from safetensors.torch import load_file
from tabular import SHARED

from pipeline.data.base import Dataset
from pipeline.data.config import DataConfig
from pipeline.data.loading import load
from pipeline.distill.settings import DistillationSettings
from pipeline.search.evaluators.registry import EvaluationTask, find_evaluator
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.teachers.resnet import resnet_cifar

RATINGS = ("naswot", "synflow", "relation", "readout", "blockwise")
SUPERNETS = {"blockwise": SupernetSettings(epochs=24), "one-shot": SupernetSettings(epochs=24)}
STORED = Path(__file__).parents[2] / "docs" / "results" / "raters" / "ratings.npz"


def dataset(images: int) -> Dataset:
    path = SHARED / "cifar10_jpeg" / "cifar10_jpeg_bytes.npz"
    # A tenth is held out.
    config = DataConfig(
        kind="npz", path=path, train_limit=round(images / 0.9), test_limit=100, validation=0.1
    )
    return load(config, seed=0)


def teacher() -> torch.nn.Module:
    network = resnet_cifar(depth=56)
    weights = load_file(SHARED / "teachers_cifar10" / "resnet56.safetensors")
    network.load_state_dict(weights, strict=False)
    return network.eval().requires_grad_(False)


def told(name: str, done: int, total: int) -> None:
    print(f"{name}: epoch {done} of {total}", flush=True)


class Raters:
    """Evaluators by name, with shared weights that are trained once."""

    def __init__(self, names: Sequence[str], images: int, folder: Path) -> None:
        network, data = teacher(), dataset(images)
        self.trained_s: dict[str, float] = {}
        self.evaluators = {}
        for name in names:
            found: dict[str, torch.Tensor] = {}
            task = EvaluationTask(
                CellNetworks(),
                data,
                DistillationSettings(epochs=1),
                0,
                lambda: network,
                lambda: None,
                SUPERNETS.get(name, SupernetSettings()),
                lambda found=found: found,
            )
            kind = find_evaluator(name)
            if kind.train is not None:
                began, clock = time.process_time(), folder / f"{name}-seconds.json"
                tensors, _ = kind.train(task, folder / f"{name}.pt", partial(told, name))
                if not clock.exists():
                    clock.write_text(json.dumps(time.process_time() - began))
                self.trained_s[name] = json.loads(clock.read_text())
                found |= tensors
            self.evaluators[name] = kind.make(task)

    def row(self, cell) -> dict:
        """The ratings of a cell, and the seconds that each took."""
        row = {"cell": cell.number, "ratings": {}, "seconds": {}}
        for name, evaluator in self.evaluators.items():
            began = time.process_time()
            row["ratings"][name] = evaluator.evaluate(cell).value
            row["seconds"][name] = round(time.process_time() - began, 4)
        return row


def representatives() -> np.ndarray:
    """For each cell, by number, that of the cell whose ratings are its own; -1 where nothing connects."""
    data = np.load(SHARED / "nasbench201" / "nasbench201.npz")
    numbers = data["arch_ops"].astype(int) @ 5 ** np.arange(6)[::-1]
    of = np.empty(len(numbers), int)
    of[numbers] = numbers[data["isomorphic_to"]]
    for number, cell in enumerate(CellNetworks().members()):
        if not is_connected(cell):
            of[number] = -1
    return of


def random_order() -> list[int]:
    """The different networks in the order in which they are rated."""
    found = sorted({*representatives().tolist()} - {-1})
    return np.random.default_rng(0).permutation(found).tolist()


def rated(raters: Raters, path: Path, most: int | None) -> list[dict]:
    """A row for each network."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {row["cell"] for row in rows}
    members = dict(enumerate(CellNetworks().members()))
    wanted = random_order()[:most]
    with path.open("a") as stream:
        for place, number in enumerate(wanted):
            if number not in known:
                rows.append(raters.row(members[number]))
                stream.write(json.dumps(rows[-1]) + "\n")
                stream.flush()
            if place % 100 == 99:
                print(f"{place + 1} of {len(wanted)} cells", flush=True)
    return rows


def write(rows: list[dict], raters: Raters, out: Path) -> None:
    """What the rows say; other ratings that the file has stay there."""
    found: dict[str, tuple[np.ndarray, float, float]] = {}
    if out.exists():
        with np.load(out) as data:
            costs = data["seconds_per_cell"], data["seconds_of_training"]
            found = dict(
                zip(map(str, data["names"]), zip(data["ratings"].T, *costs, strict=True), strict=True)
            )
    by_cell = {row["cell"]: row["ratings"] for row in rows}
    missing = dict.fromkeys(raters.evaluators, np.nan)
    rated = [by_cell.get(number, missing) for number in representatives().tolist()]
    for name in raters.evaluators:
        seconds = float(np.median([row["seconds"][name] for row in rows]))
        column = np.array([each[name] for each in rated], np.float32)
        found[name] = column, seconds, raters.trained_s.get(name, 0.0)
    columns, seconds_per_cell, seconds_of_training = zip(*found.values(), strict=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out,
        names=np.array(list(found)),
        ratings=np.stack(columns, axis=1),
        seconds_per_cell=np.array(seconds_per_cell),
        seconds_of_training=np.array(seconds_of_training),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ratings", default=",".join(RATINGS))
    parser.add_argument("--most", type=int)
    parser.add_argument("--images", type=int, default=5200)
    parser.add_argument("--work", type=Path, default=Path("lathe-work/cell-ratings"))
    parser.add_argument("--out", type=Path, default=STORED)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    raters = Raters(arguments.ratings.split(","), arguments.images, arguments.work)
    write(rated(raters, arguments.work / "rows.jsonl", arguments.most), raters, arguments.out)


if __name__ == "__main__":
    main()
