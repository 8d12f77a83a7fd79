"""Records made up of given samples, to try what is concluded from them."""

from __future__ import annotations

from collections.abc import Sequence

from devices.measurement.conditions import Conditions
from devices.measurement.measurement import (
    DeviceIdentity,
    Launch,
    Measurement,
    Reason,
    RuntimeIdentity,
    Verdict,
)
from devices.measurement.protocol import MeasuringProtocol

RUNTIME = RuntimeIdentity("litert", "2.0", "ab" * 32, "fp32", 1)
DEVICE = DeviceIdentity("aarch64", "some processor", 4, "Debian", "6.1", "cd" * 32)


def made_up_launch(samples_ns: Sequence[int], void: Reason | None = None) -> Launch:
    return Launch(
        process_start_ns=1,
        load_ns=2,
        first_inference_ns=3,
        samples_ns=tuple(samples_ns),
        peak_memory_bytes=4,
        before=Conditions(),
        after=Conditions(),
        void=void,
    )


def made_up_measurement(
    launches: Sequence[Sequence[int]], verdict: Verdict = Verdict.VALID, reasons: tuple[Reason, ...] = ()
) -> Measurement:
    return Measurement(
        artifact_digest="ef" * 32,
        target="host/litert:fp32@1",
        runtime=RUNTIME,
        device=DEVICE,
        protocol=MeasuringProtocol(),
        launches=tuple(made_up_launch(samples) for samples in launches),
        verdict=verdict,
        reasons=reasons,
        started_at="2025-01-01T00:00:00+00:00",
    )
