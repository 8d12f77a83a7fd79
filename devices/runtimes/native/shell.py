"""Reads what a device is and how it is by its shell, where there is no Python or the runtime's tool is not.

Each reading is one constant script for a POSIX shell (dash, bash, busybox, Android's mksh with toybox), which
prints a line ``name value`` for everything that it can read, and ``end`` last. Sources: proc(5), the kernel's
documentation of cpufreq and thermal zones in sysfs; for Android its ``getprop``, and what ``dumpsys`` says of
its battery, thermal and SurfaceFlinger services.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from devices.agent.machine import is_charging
from devices.connections import Connection
from devices.errors import MeasurementError
from devices.measurement.conditions import Conditions

SHELL_TIMEOUT_S = 30.0

Readings = Mapping[str, Sequence[str]]

_IDENTIFY = r"""
LC_ALL=C; export LC_ALL
say() { [ -n "$2" ] && echo "$1 $2"; }
exec 2>/dev/null
say machine "$(uname -m)"
say kernel "$(uname -r)"
say node "$(uname -n)"
say cores "$(getconf _NPROCESSORS_ONLN || nproc --all)"
say machine-id "$(cat /etc/machine-id)"
say os "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release | tr -d '"')"
say cpu "$(sed -n -e 's/^model name[^:]*: *//p' -e 's/^Hardware[^:]*: *//p' /proc/cpuinfo | head -n 1)"
say board "$(tr -d '\000' < /proc/device-tree/model)"
if command -v getprop > /dev/null; then
  for property in ro.product.manufacturer ro.product.model ro.soc.manufacturer ro.soc.model \
      ro.build.version.release ro.build.fingerprint ro.serialno; do
    say "$property" "$(getprop $property)"
  done
  say gles "$(dumpsys SurfaceFlinger | sed -n 's/^ *GLES: *//p' | head -n 1)"
fi
echo end
"""

_PLATFORM = r"""
if command -v getprop > /dev/null 2>&1; then echo "system android"; else echo "system linux"; fi
echo "machine $(uname -m)"
"""
_NAME = re.compile(r"\w[\w.-]{0,63}")
_PROCESSORS = {
    "arm64": "aarch64",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "i386": "x86",
    "i686": "x86",
}

# The shell itself reads the values: a phone has a hundred thermal zones, and a process for each would warm
# the processor that is about to be measured.
_CONDITIONS = r"""
LC_ALL=C; export LC_ALL
exec 2>/dev/null
each() { name=$1; shift; for file; do { read -r value < "$file"; } && echo "$name $value"; done; }
each load /proc/loadavg
each boot /proc/sys/kernel/random/boot_id
while read -r key value unit; do
  case $key in MemAvailable:) echo "memory $value";; esac
done < /proc/meminfo
each frequency /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq
each governor /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor
each temperature /sys/class/thermal/thermal_zone*/temp
each throttled /sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count
if command -v dumpsys > /dev/null; then
  dumpsys battery | while read -r line; do echo "battery $line"; done
  dumpsys thermalservice | while read -r line; do echo "thermal $line"; done
fi
echo end
"""


def identify_device(connection: Connection, *, emulated: bool = False) -> dict[str, Any]:
    """What a device is: the fields of ``DeviceIdentity``, equal to those that Lathe's agent reads there.

    ``instance`` is a SHA-256 of the serial number or machine identifier, which itself is not kept.
    ``accelerator`` is the GPU with its driver as Android names it, and empty elsewhere.

    Raises:
        TargetError: the device has no shell, or cannot be reached.
        MeasurementError: it did not answer to the end.
    """
    lines, ended = connection.ask(("sh", "-c", _IDENTIFY), timeout_s=SHELL_TIMEOUT_S)
    if "end" not in lines:
        raise MeasurementError("the device did not say what it is", why=ended.stderr_tail or repr(ended))
    return {**parse_identity(_readings(lines)), "emulated": emulated}


def read_conditions(connection: Connection) -> Conditions:
    """The state of a device now; ``None`` where it cannot be read, also where the device went away meanwhile.

    Raises:
        TargetError: the device has no shell, or cannot be reached.
    """
    lines, _ = connection.ask(("sh", "-c", _CONDITIONS), timeout_s=SHELL_TIMEOUT_S)
    return parse_conditions(_readings(lines))


def read_platform(connection: Connection) -> str:
    """System and processor of a device, which decide what binaries run there: e.g. android-aarch64.

    The system is android or linux, the processor one of aarch64, arm, x86_64, x86 and riscv64, or else as
    ``uname -m`` names it.

    Raises:
        TargetError: the device has no shell, or cannot be reached.
        MeasurementError: it did not answer.
    """
    lines, ended = connection.ask(("sh", "-c", _PLATFORM), timeout_s=SHELL_TIMEOUT_S)
    readings = _readings(lines)
    system, machine = ("".join(readings.get(each, ())[:1]) for each in ("system", "machine"))
    # Both become parts of a path on this machine.
    if not (_NAME.fullmatch(system) and _NAME.fullmatch(machine)):
        raise MeasurementError("the device did not say what it is", why=ended.stderr_tail or repr(ended))
    return f"{system}-{_PROCESSORS.get(machine, machine)}"


def parse_identity(readings: Readings) -> dict[str, Any]:
    """The fields of ``DeviceIdentity`` but ``emulated``.

    Raises:
        MeasurementError: the device did not even say what its processor is.
    """

    def first(*names: str) -> str:
        return next((readings[name][0].strip() for name in names if readings.get(name)), "")

    machine = first("machine")
    cores = _number(first("cores"))
    if not machine or cores is None or cores < 1:
        raise MeasurementError("the device did not say what it is", why=f"it gave {dict(readings)}")
    model, soc = first("ro.product.model"), first("ro.soc.model")
    if model:
        chip = " ".join(part for part in (first("ro.soc.manufacturer"), soc) if part) or first("cpu")
        cpu = f"{first('ro.product.manufacturer')} {model}".strip() + (f", {chip}" if chip else "")
        system = f"Android {first('ro.build.version.release')} {first('ro.build.fingerprint')}".strip()
    else:
        cpu, system = first("cpu", "board", "machine"), first("os") or "Linux"
    return {
        "machine": machine,
        "cpu": cpu,
        "cores": cores,
        "os": system,
        "kernel": first("kernel"),
        "instance": hashlib.sha256(first("ro.serialno", "machine-id", "node").encode()).hexdigest(),
        "accelerator": first("gles"),
    }


def parse_conditions(readings: Readings) -> Conditions:
    """Conditions, ``None`` for everything that is missing or not a number.

    Temperatures are those of the thermal zones; where Android hides them, those of its thermal service.
    """
    battery = _fields(readings.get("battery", ()))
    level, scale = _number(battery.get("level")), _number(battery.get("scale")) or 100
    thermal = readings.get("thermal", ())
    load = re.match(r"\d{1,18}\.\d+", next(iter(readings.get("load", ())), ""))
    memory = _numbers(readings.get("memory", ()))
    throttled = _numbers(readings.get("throttled", ()))
    return Conditions(
        load_1min=float(load[0]) if load else None,
        memory_available_bytes=memory[0] * 1024 if memory else None,
        cpu_frequency_khz=_numbers(readings.get("frequency", ())) or None,
        governor=",".join(sorted(set(readings.get("governor", ())))) or None,
        temperature_millicelsius=_numbers(readings.get("temperature", ())) or _android_temperatures(thermal),
        throttle_count=sum(throttled) if throttled else None,
        battery_percent=None if level is None else round(100 * level / scale),
        charging=is_charging(battery.get("status")),
        thermal_status=_number(_fields(thermal).get("Thermal Status")),
        boot_id=next(iter(readings.get("boot", ())), "").strip() or None,
    )


_NO_TEMPERATURE = ("-1", "6", "7", "8")
"""``TemperatureType`` of Android's thermal HAL: UNKNOWN, BCL_VOLTAGE, BCL_CURRENT, BCL_PERCENTAGE."""


def _android_temperatures(lines: Sequence[str]) -> tuple[int, ...] | None:
    """What the sensors read now; the service prints what it remembers of them before that.

    Some of its "temperatures" are voltages, currents and charges.
    """
    text = "\n".join(lines)
    _, _, current = text.partition("Current temperatures from HAL:")
    current, _, _ = current.partition("Current cooling devices from HAL:")
    found = re.findall(r"Temperature\{mValue=(-?\d{1,9}(?:\.\d+)?), mType=(-?\d+)", current)
    return tuple(round(1000 * float(value)) for value, kind in found if kind not in _NO_TEMPERATURE) or None


def _readings(lines: Sequence[str]) -> Readings:
    readings: defaultdict[str, list[str]] = defaultdict(list)
    for line in lines:
        name, _, value = line.rstrip("\r").partition(" ")
        readings[name].append(value)
    return readings


def _fields(lines: Sequence[str]) -> dict[str, str]:
    """``key: value`` lines; the first of equal keys."""
    fields: dict[str, str] = {}
    for line in lines:
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    return fields


def _numbers(texts: Sequence[str]) -> tuple[int, ...]:
    return tuple(number for number in map(_number, texts) if number is not None)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d{1,18}", text.strip()) else None
