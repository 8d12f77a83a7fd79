"""How long the pieces of a run may take: a few training steps timed, and what earlier measurements took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from devices.measurement import Launch, Measurement, MeasuringProtocol
from devices.words import count_of
from latency_db.store import Filter, Record, Store, records
from pipeline.export.base import Format

if TYPE_CHECKING:
    from torch import nn

_TIMED_STEPS = 3
_LOOKED_AT = 50
_LAUNCH_OVERHEAD_S = 0.05
"""Of a model in a launch, besides what it records: the canary, and its share of the process."""

# On two cores at 2.4 GHz, by tools/bench/export_cost.py: the worker's start, and each module.
_EXPORT_S = {"onnxruntime": (6.0, 0.1), "litert": (7.0, 0.5)}


@dataclass(frozen=True)
class Duration:
    """Seconds that something may take, and how they were found."""

    seconds: float
    basis: str


def training_step(module: nn.Module, input_shape: tuple[int, int, int], batch_size: int) -> Duration:
    """One step of SGD on a batch of noise, timed a few times; the weights stay as they are."""
    import torch

    from pipeline.distill.training import training_device

    device = training_device()
    module.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    batch = torch.randn(batch_size, *input_shape, device=device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    times = []
    for _ in range(1 + _TIMED_STEPS):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = module(batch).square().mean()
        loss.backward()
        optimizer.step()
        float(loss.detach())
        times.append(time.perf_counter() - began)
    return Duration(statistics.median(times[1:]), f"{_TIMED_STEPS} training steps timed now")


def measuring(store: Store, target: str, protocol: MeasuringProtocol) -> Duration:
    """One workload, in all launches: as earlier ones on the target, else as the protocol asks at least."""
    taken = list(islice(_launch_seconds(records(store, Filter(target=target))), _LOOKED_AT))
    if taken:
        return Duration(
            protocol.launches * (statistics.median(taken) + _LAUNCH_OVERHEAD_S),
            f"{count_of(len(taken), 'earlier measurement')} on {target}",
        )
    least_s = (protocol.warmup_ns + protocol.min_ns) / 1e9
    return Duration(
        protocol.launches * (least_s + _LAUNCH_OVERHEAD_S), f"the protocol; nothing was measured on {target}"
    )


def exporting(fmt: Format, count: int) -> Duration:
    """So many modules to a format, by one worker."""
    if not count:
        return Duration(0.0, "nothing to export")
    start_s, each_s = _EXPORT_S[fmt.runtime]
    return Duration(start_s + count * each_s, "what exports took on two cores at 2.4 GHz")


def _launch_seconds(batches: Iterable[Sequence[Record]]) -> Iterator[float]:
    for row in chain.from_iterable(batches):
        outcome = row.outcome if row.damage is None else None
        if isinstance(outcome, Measurement):
            yield statistics.median(map(_seconds, outcome.launches)) + outcome.protocol.warmup_ns / 1e9


def _seconds(launch: Launch) -> float:
    return ((launch.load_ns or 0) + (launch.first_inference_ns or 0) + sum(launch.samples_ns)) / 1e9
