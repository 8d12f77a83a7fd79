"""Arguments of ``lathe devices``; what its commands do is in ``command``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from devices.words import listed
from pipeline.cli.help import Commands
from pipeline.cli.options import Database, Json

devices_app = Commands("List, check and add the devices that you measure on.")

REACHING = "How it is reached"

_OPTIONS = {
    "ssh": ("user", "port", "jump", "identity_file", "folder"),
    "adb": ("server_host", "folder"),
    "local": (),
}
"""Keys that only some connections have, by connection; each is the option of its name."""
_WAYS = {"ssh": "--ssh", "adb": "--adb or --address"}
_REACHED = {"ssh": "by SSH", "adb": "as an Android device", "local": "as another Python of this machine"}

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the device, as in targets.")]


@devices_app.add("list")
def list_(json_output: Json = False) -> None:
    """List the devices and pools that targets may name.

    Each is shown with how it is reached and where it is defined. The machine that Lathe runs on is host; the
    others stand in your devices.toml (or in the file that the environment variable LATHE_DEVICES names) and
    in devices.toml in the current folder, which goes first and which you have to trust once.
    """
    from pipeline.cli.devices.command import list_devices

    list_devices(as_json=json_output)


@devices_app.add("check", "lathe devices check", "lathe devices check pi5 phone", "lathe devices check --all")
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Devices or pools to check; host if none is given."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Check every device.")] = False,
    json_output: Json = False,
) -> None:
    """Reach devices and run a small model on each runtime.

    If something fails, you are told how to fix it, and the rest is tried all the same. Of a pool all members
    are checked, and whether they are alike and equally fast. When a device cannot be measured on, the exit
    code is 6. The times of the small model are not measurements.
    """
    from pipeline.cli.devices.command import check_devices

    if every and names:
        raise typer.BadParameter("give names or --all, not both")
    check_devices(names or [], every=every, as_json=json_output)


@devices_app.add(
    "add",
    "lathe devices add pi5 --ssh pi@raspberrypi.local",
    "lathe devices add pi5 --ssh 10.0.0.5 --jump me@bastion",
    "lathe devices add phone --adb R58M123ABC",
    "lathe devices add other --python ~/other/.venv/bin/python",
)
def add(
    name: Name,
    *,
    ssh: Annotated[
        str | None,
        typer.Option(
            "--ssh",
            metavar="[USER@]HOST",
            help="By SSH: a host name, or an alias of ~/.ssh/config.",
            rich_help_panel=REACHING,
        ),
    ] = None,
    adb: Annotated[
        str | None,
        typer.Option(
            "--adb",
            metavar="SERIAL",
            help="An Android device, by its serial number.",
            rich_help_panel=REACHING,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="An Android device on the network.",
            rich_help_panel=REACHING,
        ),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            "--python",
            metavar="PATH",
            help="The Python that has the runtimes. Given alone: another Python of this machine.",
            rich_help_panel=REACHING,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", metavar="NAME", help="Your name on the device (SSH).", rich_help_panel=REACHING
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", help="Port of the SSH server.", rich_help_panel=REACHING),
    ] = None,
    jump: Annotated[
        str | None,
        typer.Option(
            "--jump",
            metavar="[USER@]HOST[:PORT]",
            help="Host to go through (SSH).",
            rich_help_panel=REACHING,
        ),
    ] = None,
    server_host: Annotated[
        str | None,
        typer.Option(
            "--server-host",
            metavar="HOST",
            help="Host whose adb server has the device, if it is not this machine (Android).",
            rich_help_panel=REACHING,
        ),
    ] = None,
    identity_file: Annotated[
        str | None,
        typer.Option("--identity-file", metavar="FILE", help="Private key (SSH).", rich_help_panel=REACHING),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="Folder on the device for Lathe's files (SSH, Android).",
            rich_help_panel=REACHING,
        ),
    ] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A remark for yourself.")] = None,
    emulated: Annotated[
        bool,
        typer.Option(
            "--emulated", help="Its processor is emulated, so its times say nothing about a real one."
        ),
    ] = False,
    project: Annotated[
        bool, typer.Option("--project", help="Write devices.toml in the current folder instead of yours.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the device of this name in that file.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Add a device to devices.toml.

    Nothing else in the file changes, and the device is not contacted yet; lathe devices check does that.
    """
    from pipeline.cli.devices.command import add_device

    table: dict[str, Any] = {"connection": _kind(ssh, adb, address, python)}
    login, _, host = (ssh or "").rpartition("@")
    if login and user is not None:
        raise typer.BadParameter("give the user by --user or before the host, not both")
    given = {
        "host": host or None,
        "serial": adb,
        "address": address,
        "user": user or login or None,
        "port": port,
        "jump": jump,
        "server_host": server_host,
        "identity_file": identity_file,
        "python": python,
        "folder": folder,
        "note": note,
        "emulated": emulated or None,
    }
    table |= {key: value for key, value in given.items() if value is not None}
    _require_fitting(table)
    add_device(name, table, project=project, replace=replace, as_json=json_output)


@devices_app.add("trust")
def trust(json_output: Json = False) -> None:
    """Trust the devices.toml of the current folder.

    It names programs that Lathe starts on this machine and on devices, so look at it first. When it changes,
    it is no longer trusted. The environment variable LATHE_TRUSTED names files that are always trusted.
    """
    from pipeline.cli.devices.command import trust_folder

    trust_folder(as_json=json_output)


@devices_app.add("describe", "lathe devices describe pi5")
def describe(name: Name, json_output: Json = False) -> None:
    """Show a device: its definition, state and users.

    No model is run; see lathe devices check for that. When the device cannot be reached, the exit code is 6.
    """
    from pipeline.cli.devices.command import show_device

    show_device(name, as_json=json_output)


@devices_app.add("watch", "lathe devices watch", "lathe devices watch --json --once")
def watch(
    *,
    once: Annotated[bool, typer.Option("--once", help="Tell how it is now, and end.")] = False,
    json_output: Json = False,
) -> None:
    """Show who measures what on each device.

    Also who waits for it, its temperature and its battery. This goes on until you press Ctrl-C; where there
    is no terminal, it tells once. With --json each second is a line with a document of its own. No device is
    contacted, so nothing is disturbed: what is shown is what the commands on this machine know of the
    devices that they hold or wait for. Temperature and battery are those after the newest launch. A command
    on another machine is seen when one here waits for it.
    """
    from pipeline.cli.devices.watching import watch_devices

    watch_devices(once=once, as_json=json_output)


@devices_app.add("health", "lathe devices health pi5", "lathe devices health pi5 --page pi5.html")
def health(
    name: Name,
    *,
    db: Database = None,
    page: Annotated[
        str | None, typer.Option("--page", metavar="FILE", help="Write an HTML page with plots.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Show how a device has been, from the latency database.

    Every batch of launches times a small fixed network, the canary. From it you see how fast the device
    was, by hour and by day, how many launches were disturbed and by what, and how far batches differ, on
    which intervals rest. The device is not contacted. The exit code is 8 when the database has no canary
    of it.
    """
    from pipeline.cli.devices.command import show_health

    show_health(name, db=db, page=page, as_json=json_output)


def _kind(ssh: str | None, adb: str | None, address: str | None, python: str | None) -> str:
    """The kind of connection that the options ask for."""
    ways = [kind for kind, value in (("ssh", ssh), ("adb", adb), ("adb", address)) if value is not None]
    if len(ways) > 1 or not (ways or python):
        raise typer.BadParameter("give one of --ssh, --adb and --address, or --python alone")
    return ways[0] if ways else "local"


def _require_fitting(table: dict[str, Any]) -> None:
    """Refuse options of another way to reach a device than the one that is given."""
    kind = table["connection"]
    for key in dict.fromkeys(key for keys in _OPTIONS.values() for key in keys):
        if key in table and key not in _OPTIONS[kind]:
            ways = listed([_WAYS[each] for each, keys in _OPTIONS.items() if key in keys], "or")
            raise typer.BadParameter(
                f"--{key.replace('_', '-')} goes with {ways}, and this device is reached {_REACHED[kind]}"
            )
