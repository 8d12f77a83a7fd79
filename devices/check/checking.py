"""Finds out whether a device can be measured on: reaches it, looks at it, and tries every runtime it has."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from devices.check.report import DeviceReport, Problem, RuntimeReport, hints_of
from devices.connections import Connection
from devices.errors import BrokenRuntimeError, LatheError, MeasurementError, TargetError
from devices.inventory.devices import Device, call_to, connected, find_device, runtime_of, uses_accelerator
from devices.locking.lock import device_lock, lock_state_of
from devices.measurement.measurement import DeviceIdentity
from devices.measurement.protocol import MeasuringProtocol
from devices.runtimes import Runtime, known_runtimes
from devices.runtimes.base import Call, Identify, Measure
from devices.runtimes.native.shell import identify_device, read_conditions
from devices.target import Target

LOCK_WAIT_S = 60.0
_ANSWER_S = 60.0
_RUNTIME_S = 180.0
_OLDEST_PYTHON = (3, 8)
_WHOLE = re.compile(r"\d{1,18}")

CANARIES = Path(__file__).parents[1] / "canary"
SMOKE = MeasuringProtocol(
    launches=1,
    max_launches=1,
    warmup_count=1,
    warmup_ns=0,
    min_count=20,
    min_ns=0,
    max_count=20,
    max_ns=1_000_000_000,
)
"""Enough to see that a model runs; its time is no measurement."""

# What devices.runtimes.native.shell does not read. Argument: the folder for Lathe's files.
_FACTS = r"""
LC_ALL=C; export LC_ALL
exec 2>/dev/null
df -P -k "$1" | while read -r line; do echo "space $line"; done
while read -r key value unit; do
  case $key in MemTotal:) echo "memory $value";; esac
done < /proc/meminfo
swapped() {
  while read -r key value; do
    case $key in pswpin|pswpout) echo "$1 $value";; esac
  done < /proc/vmstat
}
swapped swap-before; sleep 1; swapped swap-after
for zone in /sys/class/thermal/thermal_zone*; do
  type=; value=
  read -r type < "$zone/type"; read -r value < "$zone/temp"
  [ -n "$value" ] && echo "sensor $value $type"
done
"""
_PYTHON = """
import sys
print("version %d.%d.%d" % sys.version_info[:3])
try:
    import numpy
    print("numpy " + numpy.__version__)
except ImportError as error:
    print("without " + str(error))
"""


def check_device(
    name: str, *, lock_wait_s: float = LOCK_WAIT_S, on_step: Callable[[str], None] = lambda step: None
) -> DeviceReport:
    """Check one device; what fails is reported, and what does not depend on it is tried nevertheless.

    Args:
        name: of a device.
        lock_wait_s: the longest wait for others that measure there, seconds; then its runtimes are not tried.
        on_step: called with what is about to be done.

    A name that cannot be used is a problem of its own report, so that of several devices the others are
    checked.
    """
    try:
        device = find_device(name)
    except TargetError as error:
        return DeviceReport(name, "", problems=(Problem(error.what, error.why, error.fix),))
    check = _Check(device, lock_wait_s, on_step)
    with check.trying(f"reaching {name}"):
        check.connect()
        try:
            check.run()
        finally:
            with contextlib.suppress(LatheError):
                check.connection.close()
    return check.finish()


def describe_device(name: str) -> DeviceReport:
    """Identity, conditions and lock of a device, without a try of its runtimes.

    Raises:
        TargetError: no such device, its entry in devices.toml is wrong, or that file cannot be read.
    """
    check = _Check(find_device(name), 0.0, lambda step: None)
    with check.trying(f"reaching {name}"):
        check.connect()
        try:
            check.look()
        finally:
            with contextlib.suppress(LatheError):
                check.connection.close()
    return check.report


def try_accelerator(target: Target) -> None:
    """Run the smoke model on a target whose options choose an accelerator; of another one nothing is asked.

    Raises:
        TargetError: device or runtime unknown or not reachable, or the device is in use for too long.
        MeasurementError: the model does not run there.
    """
    if uses_accelerator(target):
        with (
            connected(target.device) as connection,
            device_lock(target.device, connection, what=f"trying {target}"),
        ):
            _smoke(runtime_of(target), call_to(target, connection, timeout_s=_RUNTIME_S))


@dataclass
class _Check:
    """A check under way."""

    device: Device
    lock_wait_s: float
    on_step: Callable[[str], None]
    connection: Connection = field(init=False)
    report: DeviceReport = field(init=False)
    _swapping: bool = False

    def __post_init__(self) -> None:
        definition = self.device.definition
        kind = "local" if definition is None else definition.connection
        self.report = DeviceReport(self.device.name, kind, self.device.emulated)

    @contextlib.contextmanager
    def trying(self, step: str) -> Iterator[None]:
        """Note down what goes wrong in a step."""
        self.on_step(step)
        try:
            yield
        except LatheError as error:
            self._problem(error.what, error.why, error.fix)

    def connect(self) -> None:
        """Open the connection.

        Raises:
            TargetError: it cannot be opened.
        """
        self.connection = self.device.connect()
        said, ended = self.connection.ask(("sh", "-c", "echo lathe"), timeout_s=_ANSWER_S)
        if "lathe" not in said:
            raise MeasurementError(
                f"the shell of '{self.device.name}' gives no answer",
                why="it took too long" if ended.timed_out else ended.stderr_tail or repr(ended),
                fix="log in by hand and see what 'sh -c \"echo lathe\"' answers there",
            )

    def look(self) -> None:
        """Everything that can be read without a runtime."""
        with self.trying("reading what it is"):
            identity = identify_device(self.connection, emulated=self.device.emulated)
            self.report = replace(self.report, identity=DeviceIdentity(**identity))
        with self.trying("reading how it is"):
            self.report = replace(self.report, conditions=read_conditions(self.connection))
        with self.trying("asking who uses it"):
            self.report = replace(self.report, lock=lock_state_of(self.connection))

    def run(self) -> None:
        """All of it."""
        self.look()
        with self.trying("pushing a file"):
            self.report = replace(self.report, folder=self.connection.scratch())
            self.connection.push(next(iter(sorted(CANARIES.glob("canary.*")))))
        with self.trying("reading space, memory and sensors"):
            self._read_facts(self.report.folder or ".")
        if self.device.has_python:
            with self.trying("starting Python"):
                self._try_python()
        with (
            self.trying("waiting for the device"),
            device_lock(self.device.name, self.connection, what="a check", wait_s=self.lock_wait_s),
        ):
            for runtime in known_runtimes():
                if self.report.python is not None or not runtime.needs_python:
                    self.on_step(f"trying {runtime.name}")
                    found = self._try_runtime(runtime)
                    self.report = replace(self.report, runtimes=(*self.report.runtimes, found))
            startable = self.report.python is not None or not self.device.has_python
            if startable and not any(runtime.version or runtime.problem for runtime in self.report.runtimes):
                self._problem(
                    f"'{self.device.name}' has no runtime that Lathe knows",
                    "; ".join(f"{runtime.name}: {runtime.detail}" for runtime in self.report.runtimes),
                    "install one of them; docs/devices/connecting.md says how",
                )

    def finish(self) -> DeviceReport:
        """The report, with hints."""
        return replace(self.report, hints=tuple(hints_of(self.report, self._swapping)))

    def _problem(self, what: str, why: str, fix: str) -> None:
        self.report = replace(self.report, problems=(*self.report.problems, Problem(what, why, fix)))

    def _read_facts(self, folder: str) -> None:
        lines, _ = self.connection.ask(("sh", "-c", _FACTS, "lathe-facts", folder), timeout_s=_ANSWER_S)
        facts: dict[str, list[list[str]]] = {}
        for line in lines:
            match line.split():
                case [kind, *words]:
                    facts.setdefault(kind, []).append(words)
        space = [words for words in facts.get("space", []) if len(words) >= 6 and _WHOLE.fullmatch(words[3])]
        memory = [words[0] for words in facts.get("memory", []) if words and _WHOLE.fullmatch(words[0])]
        self._swapping = facts.get("swap-before") != facts.get("swap-after")
        self.report = replace(
            self.report,
            free_bytes=int(space[-1][3]) * 1024 if space else None,
            memory_bytes=int(memory[0]) * 1024 if memory else None,
            sensors=tuple(
                (" ".join(words[1:]), int(words[0]))
                for words in facts.get("sensor", [])
                if words and _WHOLE.fullmatch(words[0].removeprefix("-"))
            ),
        )

    def _try_python(self) -> None:
        python = self.connection.python or ()
        shown = " ".join(python)
        where = "" if self.device.definition is None else f" in {self.device.definition.file}"
        mend = f"install Python there, or name it by 'python' under [devices.{self.device.name}]{where}"
        try:
            lines, ended = self.connection.ask((*python, "-c", _PYTHON), timeout_s=_ANSWER_S)
        except TargetError as error:
            raise TargetError(error.what, why=error.why, fix=error.fix or mend) from error
        said = dict(line.strip().split(" ", 1) for line in lines if " " in line.strip())
        version = said.get("version", "")
        if not re.fullmatch(r"\d{1,9}\.\d{1,9}\.\d{1,9}", version):
            raise TargetError(f"'{shown}' does not work as Python", why=ended.stderr_tail, fix=mend)
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_PYTHON:
            raise TargetError(f"'{shown}' is Python {version}, and 3.8 or later is needed", fix=mend)
        self.report = replace(self.report, python=f"{version}, numpy {said.get('numpy', 'missing')}")
        if "numpy" not in said:
            raise TargetError(
                f"'{shown}' has no numpy", why=said.get("without", ""), fix=f"{shown} -m pip install numpy"
            )

    def _try_runtime(self, runtime: Runtime) -> RuntimeReport:
        native = not runtime.needs_python
        options = ("native",) if native and self.device.has_python else ()
        target = Target(self.device.name, runtime.name, runtime.precisions[0], options=options)
        call = call_to(target, self.connection, timeout_s=_RUNTIME_S)
        report = RuntimeReport(runtime.name, native, capabilities=runtime.capabilities(target))
        try:
            identity = runtime.exchange(call, Identify()).only("identity")
            report = replace(report, version=str(identity["runtime"]["version"]))
        except (MeasurementError, BrokenRuntimeError) as error:
            return replace(report, problem=Problem(error.what, error.why, error.fix))
        except LatheError as error:
            return replace(report, detail=error.why or error.what)
        try:
            smoke_ns = _smoke(runtime, call)
        except LatheError as error:
            return replace(report, problem=Problem(error.what, error.why, error.fix))
        return replace(
            report, smoke_ns=smoke_ns, detail="" if smoke_ns else "there is no smoke model for this runtime"
        )


def _smoke(runtime: Runtime, call: Call) -> int | None:
    """How long an inference of the smoke model took, nanoseconds; ``None`` where there is no such model.

    It is the canary, as a file or made by the runtime's engine, which times it though it is given no file.

    Raises:
        MeasurementError: it did not run.
    """
    paths = (CANARIES / f"canary{suffix}" for suffix in runtime.suffixes)
    canary = tuple(path for path in paths if path.is_file())[:1]
    reply = runtime.exchange(call, Measure(canary, runtime.adapt(SMOKE)))
    for event in reply.all("result" if canary else "canary"):
        samples: list[int] = event.get("samples_ns") or [event["summary"]["mean_ns"]]
        return round(median(samples))
    failed = reply.all("failed")
    if not canary and not failed and reply.ended.returncode == 0:
        return None
    code, detail = (failed[0]["code"], failed[0]["detail"]) if failed else reply.end
    raise MeasurementError(
        f"{runtime.name} is installed, but the smoke model does not run on '{call.target}' ({code})",
        why=str(detail),
        fix=f"install a {runtime.name} that is built for this device, or choose another target",
    )
