"""Batches of a made-up machine in a latency database: each changes its canary and its workloads alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from devices.measurement import DeviceIdentity, Measurement, Reason, Verdict
from latency_db.store.store import Store
from tests.latency_db.measurement_samples import DEVICE, block, measurement

START = datetime(2025, 1, 1, 8, tzinfo=UTC)
CANARY_NS = 200_000
WORKLOAD_NS = 1_000_000


def batch(
    moment: datetime,
    factor: float = 1.0,
    *,
    device: DeviceIdentity = DEVICE,
    target: str = "host/onnxruntime:fp32@1",
    verdict: Verdict = Verdict.VALID,
    canary: bool = True,
    void: int = 0,
    boot: str | None = None,
) -> Measurement:
    """A measurement of a machine that is slower than usual by a factor; so many of its launches are void."""
    found = measurement(round(factor * WORKLOAD_NS), verdict, launches=5)
    canaries = (round(factor * CANARY_NS),) * 3 if canary else ()
    launches = tuple(
        replace(
            launch,
            canary_ns=canaries,
            before=replace(launch.before, boot_id=boot),
            void=Reason("other-load", "other processes ran for 90 ms") if number < void else None,
        )
        for number, launch in enumerate(found.launches)
    )
    return replace(
        found,
        launches=launches,
        started_at=moment.isoformat(timespec="seconds"),
        device=device,
        target=target,
    )


def store_batches(
    store: Store, measurements: Sequence[Measurement], *, workloads: Sequence[str] = ("conv",)
) -> None:
    """Store each measurement once for every workload, in this order."""
    for each in measurements:
        store.add_all([(block(name), each.runtime, each.device, each.protocol, each) for name in workloads])


def hourly(factors: Sequence[float], *, start: datetime = START) -> list[Measurement]:
    """A batch every hour, each slower than usual by its factor."""
    return [batch(start + timedelta(hours=number), factor) for number, factor in enumerate(factors)]


def wave(count: int, height: float) -> list[float]:
    """Factors that go up and down."""
    return [math.exp(height * (-1) ** number) for number in range(count)]
