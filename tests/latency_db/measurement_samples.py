"""Real measurement values for the tests of the latency database, fixed and drawn."""

from __future__ import annotations

from hypothesis import strategies as st

from devices.measurement.conditions import Conditions, RunQueue, Usage
from devices.measurement.measurement import (
    DeviceIdentity,
    Launch,
    Measurement,
    MeasurementFailure,
    Placed,
    Placement,
    Reason,
    RuntimeIdentity,
    Summary,
    Verdict,
)
from devices.measurement.protocol import MeasuringProtocol
from latency_db.store.keys import Key, Workload

RUNTIME = RuntimeIdentity("onnxruntime", "1.20.0", "ab" * 32, "fp32", 1, ("arena",))
DEVICE = DeviceIdentity("host", "some cpu", 2, "linux", "6.1", "machine-1")
PROTOCOL = MeasuringProtocol()
QUIET = Conditions(0.1, 8 << 30, (2_000_000,), "performance", (45_000,), 0)


def block(name: str) -> Workload:
    return Workload.of("block", name, name)


def key_of(workload: Workload) -> Key:
    return Key.of(workload, RUNTIME, DEVICE, PROTOCOL)


def measurement(latency_ns: int = 1000, verdict: Verdict = Verdict.VALID, launches: int = 3) -> Measurement:
    samples = tuple(latency_ns for _ in range(20))
    reasons = () if verdict is Verdict.VALID else (Reason("spread", f"launches of {latency_ns} ns differ"),)
    launch = Launch(10, 20, 30, samples, 1 << 20, QUIET, QUIET)
    return Measurement(
        "cd" * 32,
        "host/onnxruntime:fp32@1",
        RUNTIME,
        DEVICE,
        PROTOCOL,
        (launch,) * launches,
        verdict,
        reasons,
        "2025-01-01T00:00:00+00:00",
    )


def failure(code: str = "unsupported") -> MeasurementFailure:
    return MeasurementFailure("ef" * 32, "host/onnxruntime:fp32@1", Reason(code, "no kernel for it"))


# PostgreSQL has no text with the character 0.
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
counts = st.integers(0, 2**63)
few_counts = st.none() | st.lists(counts, max_size=3).map(tuple)
finite = st.floats(allow_nan=False, allow_infinity=False)
reasons = st.builds(Reason, code=words, detail=words)
conditions = st.builds(
    Conditions,
    load_1min=st.none() | finite,
    memory_available_bytes=st.none() | counts,
    cpu_frequency_khz=few_counts,
    governor=st.none() | words,
    temperature_millicelsius=few_counts,
    throttle_count=st.none() | counts,
    battery_percent=st.none() | st.integers(0, 100),
    charging=st.none() | st.booleans(),
    thermal_status=st.none() | st.integers(0, 6),
    gpu_frequency_khz=st.none() | counts,
    gpu_throttle_reasons=st.none() | words,
    boot_id=st.none() | words,
)
signed = st.integers(-(2**62), 2**62)
usages = st.builds(Usage, counts, counts, st.none() | counts, st.none() | counts, st.none() | counts, signed)
placements = st.builds(
    Placement, words, st.lists(st.builds(Placed, words, counts, counts), max_size=2).map(tuple)
)
summaries = st.builds(
    Summary, counts, counts, counts, counts, st.lists(st.tuples(finite, counts), max_size=2).map(tuple)
)
few_samples = st.lists(counts, max_size=3).map(tuple)
launches = st.builds(
    Launch,
    process_start_ns=st.none() | counts,
    load_ns=st.none() | counts,
    first_inference_ns=st.none() | counts,
    samples_ns=st.lists(counts, min_size=1, max_size=5).map(tuple),
    peak_memory_bytes=st.none() | counts,
    before=conditions,
    after=conditions,
    usage=st.none() | usages,
    queue=st.none() | st.builds(RunQueue, counts, counts),
    canary_ns=few_samples,
    placement=st.none() | placements,
    to_device_ns=few_samples,
    from_device_ns=few_samples,
    summary=st.none() | summaries,
    void=st.none() | reasons,
)
runtimes = st.builds(
    RuntimeIdentity,
    name=words,
    version=words,
    binary_digest=words,
    precision=words,
    threads=counts,
    options=st.lists(words, max_size=2).map(tuple),
)
devices = st.builds(
    DeviceIdentity,
    machine=words,
    cpu=words,
    cores=counts,
    os=words,
    kernel=words,
    instance=words,
    accelerator=words,
    emulated=st.booleans(),
)
protocols = st.builds(
    MeasuringProtocol,
    launches=st.integers(1, 20),
    max_ns=st.integers(0, 10**14),
    headline_quantile=st.floats(0, 1),
)
workloads = st.builds(Workload.of, st.sampled_from(["block", "network"]), words, words)
measurements = st.builds(
    Measurement,
    artifact_digest=words,
    target=words,
    runtime=runtimes,
    device=devices,
    protocol=protocols,
    launches=st.lists(launches, min_size=1, max_size=3).map(tuple),
    verdict=st.just(Verdict.VALID),  # Others are taken by how wide their interval is.
    reasons=st.lists(reasons, max_size=2).map(tuple),
    started_at=st.just("2025-01-01T00:00:00+00:00"),
    kind=st.just("measurement"),
)
failures = st.builds(
    MeasurementFailure, artifact_digest=words, target=words, reason=reasons, kind=st.just("failure")
)
