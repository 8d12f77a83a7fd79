from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from devices.measurement.measurement import DeviceIdentity, RuntimeIdentity
from devices.measurement.protocol import MeasuringProtocol
from latency_db.store.keys import Key, Workload
from tests.latency_db.measurement_samples import (
    DEVICE,
    PROTOCOL,
    RUNTIME,
    block,
    devices,
    key_of,
    protocols,
    runtimes,
    workloads,
)

PARTS: dict[str, Any] = {"runtime": RUNTIME, "device": DEVICE, "protocol": PROTOCOL}
FIELDS = [(part, field.name) for part, value in PARTS.items() for field in fields(value)]


def another(value: object) -> object:
    if isinstance(value, tuple):
        return (*value, "more")
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, float):
        # Shares, of 0 to 1.
        return 0.25 if value == 0.5 else 1 - value
    assert isinstance(value, int)
    return value + 1


def key(parts: dict[str, Any], workload: Workload) -> Key:
    return Key.of(workload, parts["runtime"], parts["device"], parts["protocol"])


@given(
    field=st.sampled_from(FIELDS), runtime=runtimes, device=devices, protocol=protocols, workload=workloads
)
def test_changing_one_field_changes_exactly_the_digest_of_its_part(
    field: tuple[str, str],
    runtime: RuntimeIdentity,
    device: DeviceIdentity,
    protocol: MeasuringProtocol,
    workload: Workload,
) -> None:
    part, name = field
    parts: dict[str, Any] = {"runtime": runtime, "device": device, "protocol": protocol}
    changed = {**parts, part: replace(parts[part], **{name: another(getattr(parts[part], name))})}
    before, after = key(parts, workload), key(changed, workload)
    differing = [p for p in ("workload", *PARTS) if getattr(before, p) != getattr(after, p)]
    assert differing == ([] if name == "instance" else [part])


@given(first=workloads, second=workloads)
def test_changing_the_workload_changes_only_its_digest(first: Workload, second: Workload) -> None:
    one, other = key(PARTS, first), key(PARTS, second)
    assert (one == other) == (first.identity == second.identity)
    assert replace(one, workload=other.workload) == other


def test_workload_identity_depends_on_kind_and_content_but_not_on_description() -> None:
    assert Workload.of("block", "a", [1]).identity == Workload.of("block", "b", [1]).identity
    assert Workload.of("block", "a", [1]).identity != Workload.of("network", "a", [1]).identity
    assert Workload.of("block", "a", [1]).identity != Workload.of("block", "a", [2]).identity


def test_launches_that_are_spread_are_measured_in_another_way() -> None:
    spread = Key.of(block("a"), RUNTIME, DEVICE, replace(PROTOCOL, spread_ns=1))
    assert spread.protocol != key_of(block("a")).protocol
    assert spread.contents["protocol"]["spread_ns"] == 1


def test_digests_stay_the_same_between_releases_so_that_rows_are_found_again() -> None:
    protocol = MeasuringProtocol(1, 5, 15, 5, 10_000_000, 50, 25_000_000, 5_000, 2_000_000_000, 0.1, 0)
    key = Key.of(block("a"), RUNTIME, DEVICE, protocol)
    assert (key.workload, key.runtime, key.device, key.protocol) == (
        "0ade3b9a2728accc4940e144965e0336a3eb7eb7b25bc41f61ba4598f581d63e",
        "815a675b7c9e5dd3c0dada55adac2756a824762e359951fcffd72a63fb6717ad",
        "2bf081a8dce1501e6a77fe69d60b3660c70ca41d302c10d8f9d71dc4e2188f5b",
        "fbbb5450fd0c76160bcfb133480100ff06a59088919bcfdbd2c6e67adf83d60c",
    )
