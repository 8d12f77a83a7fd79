"""Which members of a pool measure for a target: those that can be had, are of one kind, and equally fast."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

from devices.errors import LatheError, TargetError
from devices.inventory.devices import call_to, connected, members_of, no_member_left, runtime_of
from devices.locking.lock import device_lock
from devices.measurement.measurement import DeviceIdentity, RuntimeIdentity
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import quantile
from devices.measurement.verdict import CANARY_DRIFT
from devices.measuring.probing import probe
from devices.measuring.side_by_side import GoingOn, side_by_side
from devices.runtimes.base import Measure
from devices.target import Target

RUNS = 3
"""Processes in which a member times the canary; what disturbs one of them is no trait of the member."""

PROTOCOL = MeasuringProtocol(
    launches=1,
    max_launches=1,
    warmup_count=5,
    warmup_ns=0,
    min_count=50,
    min_ns=0,
    max_count=50,
    max_ns=2_000_000_000,
)
_TIMEOUT_S = 120.0

T = TypeVar("T")
Identity = tuple[RuntimeIdentity, DeviceIdentity]

_log = logging.getLogger(__name__)


@dataclass
class Gathering:
    """The members of a pool that measure for a target, in their order; they get fewer, never more.

    Attributes:
        target: of the pool.
        identity: runtime and device of its first member; those of the others differ in the instance alone.
        left_out: why each of the others does not measure, by name.
    """

    target: Target
    identity: Identity
    members: list[Target]
    left_out: dict[str, str]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def leave_out(self, member: Target, why: str) -> None:
        """Use a member no more, as long as this process lives, and tell."""
        with self._lock:
            if member in self.members:
                self.members.remove(member)
                self.left_out[member.device] = why
                _log.warning("'%s' is left out of the pool '%s': %s", member.device, self.target.device, why)


@functools.cache
def gather(target: Target) -> Gathering:
    """Ask the members of a pool who they are and how fast; kept per process. Who is left out is told.

    All time the canary, a small fixed network. Of members whose canaries are further apart than a launch's
    may be (``CANARY_DRIFT``) those stay that agree with the middle one, and of an even number with the faster
    of the two in the middle: whatever disturbs adds time. Where a runtime has no canary, all stay.

    Raises:
        TargetError: the members differ in model, system or runtime; or none can be used.
    """
    runtime_of(target)
    members = [replace(target, device=name) for name in members_of(target.device)]
    identities, failures = _of_each(members, probe)
    if not identities:
        raise no_member_left(target.device, [f"'{each.device}': {why}" for each, why in failures.items()])
    refuse_unlike(target.device, {each.device: _traits(*found) for each, found in identities.items()})
    gathering = Gathering(target, next(iter(identities.values())), members, {})
    for member, why in failures.items():
        gathering.leave_out(member, why)
    canaries, failures = _of_each(list(identities), canary_ns)
    for member, why in failures.items():
        gathering.leave_out(member, why)
    apart = disagreement({member.device: ns for member, ns in canaries.items() if ns is not None})
    for member in canaries:
        if member.device in apart:
            gathering.leave_out(member, apart[member.device])
    if not gathering.members:
        raise no_member_left(target.device, [f"'{name}': {why}" for name, why in gathering.left_out.items()])
    return gathering


def refuse_unlike(pool: str, traits: Mapping[str, Mapping[str, object]]) -> None:
    """See that what the members of a pool say of themselves is equal.

    Args:
        pool: its name.
        traits: what has to be equal by its name, by member.

    Raises:
        TargetError: it is not; every difference is named.
    """
    names = list(dict.fromkeys(trait for each in traits.values() for trait in each))
    told = {name: {member: each.get(name) for member, each in traits.items()} for name in names}
    differing = {name: values for name, values in told.items() if len(set(values.values())) > 1}
    if differing:
        raise TargetError(
            f"the members of the pool '{pool}' are unlike",
            why="\n     ".join(
                f"{name} is " + ", ".join(f"{value!r} of '{member}'" for member, value in values.items())
                for name, values in differing.items()
            ),
            fix="bring them to one state, or leave those out that differ: a pool is one kind of device",
        )


def canary_ns(target: Target) -> float | None:
    """How fast a device runs the canary: the best of ``RUNS`` processes, nanoseconds; no measurement.

    ``None`` where the runtime has no canary.

    Raises:
        TargetError: the device cannot be reached, or is in use for too long.
    """
    runtime = runtime_of(target)
    protocol = runtime.adapt(PROTOCOL)
    levels: list[float] = []
    with (
        connected(target.device) as connection,
        device_lock(target.device, connection, what=f"the canary on {target}") as lock,
    ):
        for _ in range(RUNS):
            lock.ensure()
            call = call_to(target, connection, timeout_s=_TIMEOUT_S)
            canaries = runtime.exchange(call, Measure((), protocol)).all("canary")
            levels += [
                quantile(event["samples_ns"], protocol.headline_quantile)
                for event in canaries
                if event["samples_ns"]
            ]
    return min(levels, default=None)


def disagreement(canaries_ns: Mapping[str, float]) -> dict[str, str]:
    """Which members are not as fast as the others, and by how much.

    Args:
        canaries_ns: by member.
    """
    if not canaries_ns:
        return {}
    ordered = sorted(canaries_ns.values())
    middle = ordered[(len(ordered) - 1) // 2]
    found = {}
    for name, ns in canaries_ns.items():
        if max(ns / middle, middle / ns) > 1 + CANARY_DRIFT:
            slower, times = ("slower", ns / middle) if ns > middle else ("faster", middle / ns)
            found[name] = (
                f"its canary runs {times - 1:.1%} {slower} than the others', more than {CANARY_DRIFT:.0%}"
            )
    return found


def _of_each(members: list[Target], ask: Callable[[Target], T]) -> tuple[dict[Target, T], dict[Target, str]]:
    """What members answer, side by side, and why others do not."""
    failures: dict[Target, str] = {}

    def asking(member: Target, going_on: GoingOn) -> list[T]:
        try:
            return [ask(member)]
        except LatheError as error:
            failures[member] = ": ".join(filter(None, (error.what, error.why)))
            return []

    found = side_by_side({member: functools.partial(asking, member) for member in members})
    return {member: answer[0] for member, answer in found.items() if answer}, failures


def _traits(runtime: RuntimeIdentity, device: DeviceIdentity) -> dict[str, object]:
    """All that decides a latency, and so the key of a measurement."""
    of_runtime = {f"{name} of the runtime": value for name, value in asdict(runtime).items()}
    return {**asdict(replace(device, instance="")), **of_runtime}
