"""Whether the members of a pool, each of which was checked, can measure as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from devices.check.report import DeviceReport, Problem
from devices.errors import LatheError
from devices.inventory import Pool, find_device
from devices.measuring.agreement import canary_ns, disagreement, refuse_unlike
from devices.runtimes import find_runtime
from devices.target import Target


@dataclass(frozen=True)
class PoolReport:
    """What a check of a pool found.

    Attributes:
        members: all of them.
        runtime: with which the canary was timed, if it was.
        canaries_ns: how fast each member ran it, nanoseconds; no measurement.
        left_out: why members would not measure, by name.
        problems: what keeps the pool from being measured on.
    """

    name: str
    members: tuple[str, ...]
    runtime: str = ""
    canaries_ns: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """All members measure."""
        return not self.problems and not self.left_out


def check_pool(
    pool: Pool, reports: Sequence[DeviceReport], *, on_step: Callable[[str], None] = lambda step: None
) -> PoolReport:
    """See whether the members are alike and equally fast.

    Args:
        pool: without a fault.
        reports: of the members.
        on_step: called with what is about to be done.
    """
    found = PoolReport(
        pool.name, pool.members, left_out={each.name: "it is not ready" for each in reports if not each.ok}
    )
    ready = [each for each in reports if each.ok]
    try:
        refuse_unlike(pool.name, {each.name: _traits(each) for each in ready})
        common = next(iter(_common_targets(ready)), None)
        if common is None or len(ready) < 2:
            return found
        on_step(f"comparing how fast {common.runtime} is on its members")
        told = {each.name: canary_ns(replace(common, device=each.name)) for each in ready}
    except LatheError as error:
        return replace(found, problems=(Problem(error.what, error.why, error.fix),))
    canaries = {name: ns for name, ns in told.items() if ns is not None}
    return replace(
        found,
        runtime=common.runtime,
        canaries_ns=canaries,
        left_out={**found.left_out, **disagreement(canaries)},
    )


def _traits(report: DeviceReport) -> Mapping[str, object]:
    """What has to be equal on all members."""
    identity = {} if report.identity is None else asdict(replace(report.identity, instance=""))
    return {**identity, **{f"version of {each.name}": each.version for each in report.runtimes}}


def _common_targets(reports: Sequence[DeviceReport]) -> list[Target]:
    """Targets of the runtimes in which the small model ran on every member, on the first of them."""
    ran = [
        {(each.name, each.native) for each in report.runtimes if each.smoke_ns is not None}
        for report in reports
    ]
    return [
        Target(
            report.name,
            each.name,
            find_runtime(each.name, native=each.native).precisions[0],
            options=("native",) if each.native and find_device(report.name).has_python else (),
        )
        for report in reports[:1]
        for each in report.runtimes
        if all((each.name, each.native) in those for those in ran)
    ]
