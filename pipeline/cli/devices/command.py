"""What ``lathe devices`` does; imported only when one of its commands runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from devices.check import DeviceReport, check_device, check_pool, describe_device
from devices.errors import TargetError
from devices.inventory import (
    find_device,
    find_pool,
    known_devices,
    known_pools,
    members_of,
    project_file,
    trust_project_file,
    user_file,
    write_device,
)
from devices.words import listed
from latency_db.errors import StoreError
from latency_db.history import health_of, history_of, machines_of
from latency_db.store import open_store
from pipeline.cli.devices.documents import device_json, health_json, pool_json, pool_report_json, report_json
from pipeline.cli.devices.health import facts_text, health_facts
from pipeline.cli.devices.text import definition_text, list_text, pool_text, report_text
from pipeline.cli.output import print_json
from pipeline.report import render_health


def list_devices(*, as_json: bool) -> None:
    """``lathe devices list``."""
    devices, pools = known_devices(), known_pools()
    if as_json:
        print_json(
            {
                "devices": [device_json(device) for device in devices],
                "pools": [pool_json(pool) for pool in pools],
            }
        )
    else:
        typer.echo(list_text(devices, pools))


def check_devices(names: Sequence[str], *, every: bool, as_json: bool) -> None:
    """``lathe devices check``; ends with 6 when one of them cannot be measured on."""
    chosen = [device.name for device in known_devices()] if every else names or ["host"]
    pools = {name: pool for name in chosen if (pool := find_pool(name)) is not None}
    reports: dict[str, DeviceReport] = {}
    for each in dict.fromkeys(member for name in chosen for member in members_of(name)):
        reports[each] = check_device(each, on_step=_announcing(each))
        if not as_json:
            typer.echo(report_text(reports[each]))
    found = []
    for name, pool in pools.items():
        members = [reports[member] for member in pool.members]
        found.append(check_pool(pool, members, on_step=_announcing(name)))
        if not as_json:
            typer.echo(pool_text(found[-1]))
    if as_json:
        print_json(
            {
                "devices": [report_json(report) for report in reports.values()],
                "pools": [pool_report_json(report) for report in found],
            }
        )
    if not (all(report.ok for report in reports.values()) and all(report.ok for report in found)):
        raise typer.Exit(TargetError.exit_code)


def add_device(name: str, table: dict[str, Any], *, project: bool, replace: bool, as_json: bool) -> None:
    """``lathe devices add``."""
    path = project_file() if project else user_file()
    write_device(path, name, table, replace=replace)
    if as_json:
        print_json({"name": name, "file": str(path), "table": table})
    else:
        typer.echo(f"{name} is in {path}")
    sys.stderr.write(f"next: lathe devices check {name}\n")


def trust_folder(*, as_json: bool) -> None:
    """``lathe devices trust``."""
    path, definitions = trust_project_file()
    if as_json:
        tables = {name: dict(definition.table) for name, definition in definitions.items()}
        print_json({"file": str(path), "devices": tables})
    else:
        typer.echo(f"{path} is trusted as it is now, with {listed(definitions) or 'no device'}")


def show_device(name: str, *, as_json: bool) -> None:
    """``lathe devices describe``; ends with 6 when the device cannot be reached."""
    if (pool := find_pool(name)) is not None:
        raise TargetError(
            f"'{name}' is a pool",
            why=f"its members are {', '.join(pool.members)}, and one device is described at a time",
            fix=f"name one of them, or run 'lathe devices check {name}'",
        )
    device = find_device(name)
    report = describe_device(name)
    if as_json:
        print_json({"definition": device_json(device), **report_json(report)})
    else:
        typer.echo(definition_text(device) + report_text(report, checked=False))
    if not report.ok:
        raise typer.Exit(TargetError.exit_code)


def show_health(name: str, *, db: str | None, page: str | None, as_json: bool) -> None:
    """``lathe devices health``; a device that is no longer defined is known to the database all the same."""
    with open_store(db, must_exist=True) as store:
        try:
            machines = machines_of(store, name)
        except StoreError:
            find_device(name)
            raise
        machine, *others = machines
        health = health_of(name, history_of(store, machine.identity))
    facts = health_facts(machine, others, health)
    if page is not None:
        render_health(name, facts, health, Path(page))
    if as_json:
        print_json({"name": name, **health_json(machine, others, health), "page": page})
    else:
        typer.echo(facts_text(name, facts))
        if page is not None:
            typer.echo(f"plots are in {page}")


def _announcing(name: str) -> Callable[[str], None]:
    def announce(step: str) -> None:
        sys.stderr.write(f"{name}: {step}\n")

    return announce
