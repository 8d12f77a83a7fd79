"""Databases with made-up measurements of the blocks and networks of a model space."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import torch
from nni.nas.nn.pytorch import ModelSpace

from devices.measurement.conditions import Conditions
from devices.measurement.measurement import Launch, Measurement, MeasurementFailure, Outcome, Reason, Verdict
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring.batch import probe
from devices.target import Target
from latency_db.store.keys import Workload
from latency_db.store.store import Store, open_store
from pipeline.export.base import Format
from pipeline.integrations.nni import LatencyTableProfiler
from pipeline.integrations.nni.blocks import UnitBlock
from pipeline.integrations.nni.building import block_parts, network_parts
from pipeline.integrations.nni.space import ModelSpaceBlocks
from pipeline.progress import ConsoleReporter

TARGET = Target("host", "onnxruntime")
NETWORKS = 12


@functools.cache
def block_space(make: Callable[[], ModelSpace], inputs: torch.Tensor) -> ModelSpaceBlocks:
    return ModelSpaceBlocks(make(), inputs, ConsoleReporter())


def cost_ns(block: UnitBlock) -> int:
    """What a block takes alone."""
    return 5_000 + block.sizes.macs


def network_ns(space: ModelSpaceBlocks, sample: dict[str, object]) -> int:
    """What a network takes."""
    return 2_000 + round(0.8 * sum(cost_ns(space.blocks[name]) for name in space.blocks_of(sample)))


def fill(db: Path, space: ModelSpaceBlocks, *, failing: str | None = None, networks: int = NETWORKS) -> None:
    """Store every block, and networks; blocks whose description holds ``failing`` cannot run."""
    with open_store(str(db)) as store:
        failed = set()
        for identity, part in block_parts(space, Format.ONNX).items():
            block = space.blocks[identity]
            if failing is not None and failing in block.description:
                failed.add(identity)
                reason = Reason("unsupported", "no kernel for it")
                keep(store, part.workload, MeasurementFailure("", str(TARGET), reason))
            else:
                keep(store, part.workload, ran(cost_ns(block)))
        for sample, part in network_parts(space, Format.ONNX, networks):
            if failed.isdisjoint(space.blocks_of(sample)):
                keep(store, part.workload, ran(network_ns(space, sample)))


def keep(store: Store, workload: Workload, outcome: Outcome) -> None:
    store.add(workload, *probe(TARGET), MeasuringProtocol(), outcome)


def ran(latency_ns: int) -> Measurement:
    """A measurement made up for this host, whose runtime and device are asked for."""
    runtime, device = probe(TARGET)
    launch = Launch(1, 1, 1, (latency_ns,) * 20, None, Conditions(), Conditions())
    return Measurement(
        "ab" * 32,
        str(TARGET),
        runtime,
        device,
        MeasuringProtocol(),
        (launch,) * 3,
        Verdict.VALID,
        (),
        "2025-01-01",
    )


def profiler(
    db: Path, make: Callable[[], ModelSpace], inputs: torch.Tensor, **options: str
) -> LatencyTableProfiler:
    """A profiler from a filled database."""
    return LatencyTableProfiler.load(
        make(), inputs, str(TARGET), db=os.fspath(db), networks=NETWORKS, **options
    )  # type: ignore[arg-type]
