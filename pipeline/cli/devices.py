"""``lathe devices``: which devices there are, whether they work, and how to add one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devices.errors import LatheError, TargetError
from pipeline.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from devices.check import DeviceReport, RuntimeReport
    from devices.inventory import Device
    from devices.locking import LockState

devices_app = typer.Typer(
    help="Devices: which there are, whether they can be measured on, how to add one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the device, as in targets.")]


@devices_app.command("list")
def list_devices(json_output: Json = False) -> None:
    """List the devices that targets may name, how each is reached, and where it is defined.

    Beside host, the machine that Lathe runs on, they are those of the user's devices.toml (or of the file
    that the environment variable LATHE_DEVICES names), and of devices.toml in the current folder, which goes
    first.
    """
    from devices.inventory import known_devices

    devices = known_devices()
    if json_output:
        print_json({"devices": [_as_json(device) for device in devices]})
        return
    width = max(len(device.name) for device in devices)
    for device in devices:
        definition = device.definition
        notes = [] if definition is None else [_reached_by(device), str(definition.file)]
        notes += ["emulated"] if device.emulated else []
        notes += [definition.note] if definition is not None and definition.note else []
        if definition is not None and definition.fault is not None:
            notes.append(" ".join(definition.fault.why.split()))
        kind = "this machine" if definition is None else definition.connection or "cannot be used"
        typer.echo(f"{device.name:{width}}  " + "  ".join([kind, *notes]))


@devices_app.command("check")
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Devices to check; host if none is given.")
    ] = None,
    all_devices: Annotated[bool, typer.Option("--all", help="Check every device.")] = False,
    json_output: Json = False,
) -> None:
    """Reach devices, see what they are and how they are, and run a small model on each runtime found.

    What goes wrong is reported with how to mend it, and the rest is tried nevertheless. When a device cannot
    be measured on, the exit code is 6. The times of the small model are no measurements.
    """
    from devices.check import check_device
    from devices.inventory import known_devices

    if all_devices and names:
        raise typer.BadParameter("give names or --all, not both")
    chosen = [device.name for device in known_devices()] if all_devices else names or ["host"]
    reports = []
    for name in chosen:
        report = check_device(name, on_step=_announcing(name))
        reports.append(report)
        if not json_output:
            typer.echo(_report_text(report))
    if json_output:
        print_json({"devices": [_report_json(report) for report in reports]})
    if not all(report.ok for report in reports):
        raise typer.Exit(TargetError.exit_code)


@devices_app.command("add")
def add(
    name: Name,
    *,
    ssh: Annotated[
        str | None,
        typer.Option("--ssh", metavar="HOST", help="Reach it by SSH: host or alias of ~/.ssh/config."),
    ] = None,
    adb: Annotated[
        str | None, typer.Option("--adb", metavar="SERIAL", help="An Android device by its serial number.")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="HOST:PORT", help="An Android device on the network.")
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            "--python",
            metavar="PATH",
            help="Python that has the runtimes; given alone, another Python of this machine.",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", help="User name there (SSH).")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port of the SSH server.")] = None,
    identity_file: Annotated[
        str | None, typer.Option("--identity-file", metavar="FILE", help="Private key (SSH).")
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            "--folder", metavar="DIR", help="Folder on the device for Lathe's files (SSH, Android)."
        ),
    ] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A remark for yourself.")] = None,
    emulated: Annotated[
        bool,
        typer.Option("--emulated", help="Its processor is emulated: its times say nothing of a real one."),
    ] = False,
    project: Annotated[
        bool, typer.Option("--project", help="Write devices.toml in the current folder, not the user's.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a device of this name in that file.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Add a device to devices.toml; nothing else in the file changes, and the device is not contacted yet."""
    from devices.inventory import project_file, user_file, write_device

    table: dict[str, Any] = {"connection": _kind(ssh, adb, address, python)}
    given = {
        "host": ssh,
        "serial": adb,
        "address": address,
        "user": user,
        "port": port,
        "identity_file": identity_file,
        "python": python,
        "folder": folder,
        "note": note,
        "emulated": emulated or None,
    }
    table |= {key: value for key, value in given.items() if value is not None}
    path = project_file() if project else user_file()
    write_device(path, name, table, replace=replace)
    if json_output:
        print_json({"name": name, "file": str(path), "table": table})
    else:
        typer.echo(f"{name} is in {path}")
    sys.stderr.write(f"next: lathe devices check {name}\n")


@devices_app.command("describe")
def describe(name: Name, json_output: Json = False) -> None:
    """Show how a device is defined, what it is, how it is now, and who uses it.

    No model is run; see check for that. When the device cannot be reached, the exit code is 6.
    """
    from devices.check import describe_device
    from devices.inventory import find_device

    device = find_device(name)
    report = describe_device(name)
    if json_output:
        print_json({"definition": _as_json(device), **_report_json(report)})
    else:
        definition = device.definition
        if definition is not None:
            typer.echo(f"defined in {definition.file}")
            for key, value in definition.table.items():
                typer.echo(f"  {key} = {value!r}")
        typer.echo(_report_text(report, checked=False))
    if not report.ok:
        raise typer.Exit(TargetError.exit_code)


def _announcing(name: str) -> Callable[[str], None]:
    def announce(step: str) -> None:
        sys.stderr.write(f"{name}: {step}\n")

    return announce


def _kind(ssh: str | None, adb: str | None, address: str | None, python: str | None) -> str:
    """The kind of connection that the options ask for."""
    ways = [kind for kind, value in (("ssh", ssh), ("adb", adb), ("adb", address)) if value is not None]
    if len(ways) > 1 or not (ways or python):
        raise typer.BadParameter("give one of --ssh, --adb and --address, or --python alone")
    return ways[0] if ways else "local"


def _reached_by(device: Device) -> str:
    table = {} if device.definition is None else device.definition.table
    keys = ("host", "serial", "address", "python")
    return next((str(table[key]) for key in keys if key in table), "")


def _as_json(device: Device) -> dict[str, Any]:
    definition = device.definition
    return {
        "name": device.name,
        "connection": "local" if definition is None else definition.connection,
        "file": None if definition is None else str(definition.file),
        "emulated": device.emulated,
        "has_python": device.has_python,
        "tools": dict(device.tools),
        "table": None if definition is None else dict(definition.table),
        "fault": None if definition is None or definition.fault is None else str(definition.fault),
    }


def _report_json(report: DeviceReport) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(report), "ok": report.ok}


def _report_text(report: DeviceReport, *, checked: bool = True) -> str:
    """A report as lines for people; what could not be found out is left out."""
    notes = [note for note in (report.connection, "emulated" if report.emulated else "") if note]
    lines = [report.name + (f" ({', '.join(notes)})" if notes else "")]
    lines += [f"  {label:12} {text}" for label, text in _facts(report) if text]
    lines += [_runtime_text(runtime) for runtime in report.runtimes]
    problems = [*report.problems, *(each.problem for each in report.runtimes if each.problem is not None)]
    for problem in problems:
        error = LatheError(problem.what, why=problem.why, fix=problem.fix)
        lines.append("  problem: " + str(error).replace("\n", "\n    "))
    lines += [f"  hint: {hint}" for hint in report.hints]
    if checked:
        lines.append("  ready" if report.ok else "  not ready")
    return "\n".join(lines)


def _facts(report: DeviceReport) -> list[tuple[str, str]]:
    """Label and text of everything that is known of a device."""
    facts = []
    identity, now = report.identity, report.conditions
    if identity is not None:
        machine = f"{identity.machine}, {identity.cpu}, {identity.cores} cores"
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
    return f"{name:26} {state}"
