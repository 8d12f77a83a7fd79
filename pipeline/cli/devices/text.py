"""What ``lathe devices`` prints for people."""

from __future__ import annotations

from collections.abc import Sequence

from devices.check import DeviceReport, PoolReport, Problem, RuntimeReport
from devices.errors import LatheError, TargetError
from devices.inventory import Device, Pool
from devices.locking import LockState
from devices.words import count_of


def list_text(devices: Sequence[Device], pools: Sequence[Pool]) -> str:
    """A line for each device: how it is reached, and where it is defined; then one for each pool."""
    width = max(len(name) for name in [*(each.name for each in devices), *(each.name for each in pools)])
    lines = []
    for device in devices:
        fault = None if device.definition is None else device.definition.fault
        lines.append(f"{device.name:{width}}  " + "  ".join(_notes(device)))
        lines += [f"{'':{width}}  problem: {each}" for each in _faults(fault)]
    for pool in pools:
        lines.append(f"{pool.name:{width}}  pool  {', '.join(pool.members)}  {pool.file}")
        lines += [f"{'':{width}}  problem: {each}" for each in _faults(pool.fault)]
    return "\n".join(lines)


def _notes(device: Device) -> list[str]:
    definition = device.definition
    if definition is None:
        return ["this machine", *(["emulated"] if device.emulated else [])]
    notes = [definition.connection or "cannot be used", _reached_by(device), str(definition.file)]
    notes += ["emulated"] if device.emulated else []
    return notes + ([definition.note] if definition.note else [])


def _faults(fault: TargetError | None) -> list[str]:
    """What is wrong with a definition, one by one."""
    return [] if fault is None else [line.strip() for line in fault.why.splitlines()]


def pool_text(report: PoolReport) -> str:
    """Whether the members of a pool measure as one, as lines for people."""
    lines = [f"{report.name} (pool of {', '.join(report.members)})"]
    if report.canaries_ns:
        told = ", ".join(f"{ns / 1e6:.3f} ms on {name}" for name, ns in report.canaries_ns.items())
        lines.append(f"  canary       {told} with {report.runtime} (no measurement)")
    lines += [f"  left out     {name}: {why}" for name, why in report.left_out.items()]
    lines += _problem_lines(report.problems)
    lines.append("  ready" if report.ok else "  not ready as a whole")
    return "\n".join(lines)


def _problem_lines(problems: Sequence[Problem]) -> list[str]:
    errors = (LatheError(each.what, why=each.why, fix=each.fix) for each in problems)
    return ["  problem: " + str(error).replace("\n", "\n    ") for error in errors]


def report_text(report: DeviceReport, *, checked: bool = True) -> str:
    """A report as lines for people; what could not be found out is left out."""
    notes = [note for note in (report.connection, "emulated" if report.emulated else "") if note]
    lines = [report.name + (f" ({', '.join(notes)})" if notes else "")]
    lines += [f"  {label:12} {text}" for label, text in _facts(report) if text]
    lines += [_runtime_text(runtime) for runtime in report.runtimes]
    problems = [*report.problems, *(each.problem for each in report.runtimes if each.problem is not None)]
    lines += _problem_lines(problems)
    lines += [f"  hint: {hint}" for hint in report.hints]
    if checked:
        lines.append("  ready" if report.ok else "  not ready")
    return "\n".join(lines)


def definition_text(device: Device) -> str:
    """How a device is defined; empty for this machine."""
    definition = device.definition
    if definition is None:
        return ""
    lines = [f"  {key} = {value!r}" for key, value in definition.table.items()]
    return "\n".join([f"defined in {definition.file}", *lines, ""])


def _reached_by(device: Device) -> str:
    table = {} if device.definition is None else device.definition.table
    keys = ("host", "serial", "address", "python")
    return next((str(table[key]) for key in keys if key in table), "")


def _facts(report: DeviceReport) -> list[tuple[str, str]]:
    """Label and text of everything that is known of a device."""
    facts = []
    identity, now = report.identity, report.conditions
    if identity is not None:
        machine = f"{identity.machine}, {identity.cpu}, {count_of(identity.cores, 'core')}"
        facts += [("machine", machine), ("system", f"{identity.os}, kernel {identity.kernel}")]
        facts.append(("accelerator", identity.accelerator))
    facts.append(("python", report.python or ""))
    if report.folder is not None:
        space = "" if report.free_bytes is None else f", {report.free_bytes / 1e9:.1f} GB free"
        facts.append(("folder", f"{report.folder}{space}"))
    if now is not None:
        facts += [
            ("clocks", _range(now.cpu_frequency_khz, 1000, "MHz") or "cannot be read"),
            ("governor", now.governor or "cannot be read"),
            ("temperature", _temperatures(report) or "cannot be read"),
        ]
        memory = "" if now.memory_available_bytes is None else f"{now.memory_available_bytes / 1e9:.1f} GB"
        total = "" if report.memory_bytes is None else f" of {report.memory_bytes / 1e9:.1f} GB"
        facts.append(("memory", memory and f"{memory}{total} available"))
        facts.append(("load", "" if now.load_1min is None else f"{now.load_1min:.2f}"))
        if now.battery_percent is not None:
            facts.append(("battery", f"{now.battery_percent} %{', charging' if now.charging else ''}"))
    if identity is not None:
        facts.append(("lock", _lock_text(report.lock)))
    return facts


def _range(values: tuple[int, ...] | None, divisor: int, unit: str) -> str:
    if not values:
        return ""
    low, high = round(min(values) / divisor), round(max(values) / divisor)
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _temperatures(report: DeviceReport) -> str:
    if report.sensors:
        return ", ".join(f"{name or 'sensor'} {value / 1000:.0f} °C" for name, value in report.sensors[:8])
    now = report.conditions
    return "" if now is None else _range(now.temperature_millicelsius, 1000, "°C")


def _lock_text(lock: LockState | None) -> str:
    if lock is None:
        return "unknown, there is no flock command"
    if not lock.taken and not lock.entries:
        return "free"
    holder = lock.holder
    text = "held" if holder is None else f"held by {holder.who} since {holder.since}"
    return text + "".join(f"; waiting: {entry.who}" for entry in lock.waiting)


def _runtime_text(runtime: RuntimeReport) -> str:
    name = f"  {runtime.name}{' (native)' if runtime.native else ''}"
    if runtime.version is None:
        state = "not usable" if runtime.problem else f"not installed: {runtime.detail}"
    elif runtime.problem is not None:
        state = f"{runtime.version}, does not run"
    elif runtime.smoke_ns is None:
        state = f"{runtime.version}, {runtime.detail}"
    else:
        state = f"{runtime.version}, small model ran ({runtime.smoke_ns / 1e6:.2f} ms, no measurement)"
    lacking = [f"no {what} ({support.note})" for what, support in runtime.capabilities if not support]
    given = [what for what, support in runtime.capabilities if support]
    told = f"\n{'':29}gives {', '.join(given)}; {', '.join(lacking)}" if runtime.version is not None else ""
    return f"{name:26} {state}{told}"
