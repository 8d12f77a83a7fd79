"""What AKD's study is made on: scales, images, a small space, and its latencies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from devices.measurement import Interval, MeasuringProtocol
from devices.target import Target
from latency_db.models import NetworkModel
from latency_db.store import open_store
from latency_db.tables import LatencyTable
from pipeline.data.base import Dataset
from pipeline.data.config import DataConfig
from pipeline.data.loading import load
from pipeline.distill.settings import DistillationSettings, TrainingSettings
from pipeline.progress import ConsoleReporter
from pipeline.spaces.mobile.config import MobileSpaceConfig, StageConfig
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.block_sizes import sizes_of
from pipeline.tables.building.space_table import build
from pipeline.tables.exchange.table_file import read_table, write_table

SHARED = Path(os.environ.get("LATHE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
TARGET = Target.parse("host/onnxruntime:fp32@1")
IMAGE_SIZE = 14


@dataclass(frozen=True)
class Scale:
    """How much is done. Seeds are those of searches and of full trainings."""

    train_limit: int
    test_limit: int
    seeds: int
    evaluations: int
    evaluated_again: int
    pool: int
    teacher_epochs: int
    short_epochs: int
    full_epochs: int
    measured: bool = True

    @property
    def teacher(self) -> TrainingSettings:
        epochs = self.teacher_epochs
        return TrainingSettings(epochs=epochs, patience=epochs, learning_rate=0.05, augment="crop-flip")

    @property
    def short(self) -> DistillationSettings:
        return student_training(self.short_epochs)

    @property
    def full(self) -> DistillationSettings:
        return student_training(self.full_epochs)


def student_training(epochs: int) -> DistillationSettings:
    return DistillationSettings(epochs=epochs, patience=epochs, batch_size=32, learning_rate=0.1)


# Meant for one core: half an hour at the small scale, half a day at the large one.
SCALES = {
    "smoke": Scale(400, 200, 2, 4, 2, 4, 1, 1, 1, measured=False),
    "small": Scale(5000, 4000, 5, 28, 3, 24, 10, 1, 5),
    "large": Scale(20000, 10000, 10, 100, 5, 40, 12, 2, 10),
}


def images(scale: Scale) -> Dataset:
    """Fashion-MNIST, made smaller."""
    config = DataConfig(
        kind="npz",
        path=SHARED / "fashion_mnist" / "fashion_mnist.npz",
        validation=0.3,
        train_limit=scale.train_limit,
        test_limit=scale.test_limit,
        image_size=IMAGE_SIZE,
    )
    return load(config, seed=0)


def space_for(dataset: Dataset) -> MobileSpace:
    """AKD's choices in two stages, small enough for a table and for trainings in seconds: 2,304 networks."""
    operations = ("inverted", "separable", "regular")
    first = StageConfig(
        widths=(8,),
        depths=(1, 2),
        stride=1,
        kernels=(3, 5),
        expansions=(3,),
        squeeze_excite=(0.0,),
        operations=operations,
        skips=("identity", "none"),
    )
    second = StageConfig(
        widths=(16, 24),
        depths=(1, 2),
        kernels=(3, 5),
        expansions=(3,),
        operations=operations,
        skips=("identity", "pool", "none"),
    )
    config = MobileSpaceConfig(stem_width=8, head_width=64, stages=(first, second))
    return MobileSpace.from_config(config, dataset.input_shape, len(dataset.classes))


def latency_model(space: MobileSpace, folder: Path, *, measured: bool) -> NetworkModel:
    """Of the table that is measured once, or of one that is made up from sizes."""
    path = folder / "table.json"
    if not measured:
        return made_up(space)
    if not path.exists():
        with open_store(str(folder / "latency.db")) as store:
            bench = Bench(store, MeasuringProtocol(), ConsoleReporter())
            model = build(space, [TARGET], bench, networks=20)[TARGET].model
        names = {block.identity: str(block) for block in space.distinct_blocks()}
        write_table(path, model, space.description, names)
    return read_table(path).model


def made_up(space: MobileSpace) -> NetworkModel:
    sizes = sizes_of(space.distinct_blocks())
    latencies_ns = {name: 2e3 + size.macs / 5 + size.boundary_bytes / 8 for name, size in sizes.items()}
    rows = {name: Interval(ns, ns, ns, 0.9) for name, ns in latencies_ns.items()}
    return NetworkModel(LatencyTable(TARGET, rows, {}, sizes), 1.0, 0.0, 0.0, 1.05, 0.9, 20)
