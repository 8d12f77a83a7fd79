"""Runtimes whose makers publish a command-line tool, for devices without Python.

The tool is a file of this machine. It is pushed to the device, and run there once for every model of a
launch; what it prints is turned into the events that the agent would have sent. The canary is run before,
between and after the models as the agent runs it, and the shell reads the conditions of the device.
"""

from __future__ import annotations

import contextlib
import re
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from platformdirs import user_cache_path

from devices.connections import Completed
from devices.digests import file_digest
from devices.errors import MeasurementError, TargetError
from devices.measurement.measurement import Conditions, MeasuringProtocol, Placement
from devices.runtimes.base import (
    Call,
    Event,
    Identify,
    Measure,
    ProfileOperations,
    Reply,
    Request,
    Runtime,
    Sustain,
    describe_end,
)
from devices.runtimes.native.shell import identify_device, read_conditions, read_platform
from devices.target import Target

Fields = dict[str, Any]

CANNOT_START = (126, 127)
"""Exit statuses of a shell that found no such command, or could not start it."""
DETAIL_LINES = 12
"""Lines of a tool's last output that explain a failure."""

# Standard error goes where the results go: what a delegate took is told among the errors, and connections
# hand over the lines of standard output only.
_RUN = 'tool=$1; shift; exec 2>&1; [ -x "$tool" ] || chmod 700 "$tool"; exec "$@"'
_TAKE = 'cat "$1"*; rm -f "$1"*'

_MACHINES = {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""``e_machine`` of an ELF file, elf(5)."""
_RUNS_TOO = {"aarch64": ("aarch64", "arm"), "x86_64": ("x86_64", "x86")}


class ToolFailed(Exception):
    """A run of the tool gave no result: a machine-readable code, and what it said last."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(detail)


class _Ended(Exception):
    """The exchange is over before its end: the device is lost, or the time is up."""

    def __init__(self, ended: Completed) -> None:
        self.ended = ended
        super().__init__()


def native_folder() -> Path:
    """Where tools for devices are looked for on this machine, as ``PLATFORM/TOOL``."""
    return user_cache_path("lathe") / "native"


def native_tool(name: str, platform: str, own: Mapping[str, str]) -> Path:
    """The file of this machine that is a tool for one platform.

    Args:
        name: of the tool.
        platform: as ``devices.runtimes.native.shell.read_platform`` gives it, e.g. android-aarch64.
        own: paths of tools by name, as devices.toml gives them for the device; they go before those of
            ``native_folder``.

    Raises:
        TargetError: there is none, or it is built for another processor.
    """
    path = Path(own.get(name, native_folder() / platform / name))
    machine = platform.partition("-")[2]
    if not path.is_file():
        raise TargetError(
            f"there is no {name} for {platform}",
            why=f"there is no file {str(path)!r}",
            fix=f"put one there with tools/fetch_native, or name yours for the device in devices.toml as "
            f'tools.{name} = "/path/to/{name}"',
        )
    built_for = _elf_machine(path)
    if built_for is not None and built_for not in _RUNS_TOO.get(machine, (machine,)):
        raise TargetError(
            f"{str(path)!r} cannot run on {platform}",
            why=f"it is built for {built_for}",
            fix=f"give a {name} that is built for {machine}",
        )
    return path


def _elf_machine(path: Path) -> str | None:
    """The processor that an ELF file is built for; ``None`` for another kind of file."""
    with path.open("rb") as stream:
        header = stream.read(20)
    if len(header) < 20 or not header.startswith(b"\x7fELF"):
        return None
    machine = int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")
    return _MACHINES.get(machine, f"processor {machine} of elf(5)")


@dataclass
class Session:
    """One exchange: the tool on its device, and how much time is left.

    Attributes:
        tool: its name.
        digest: SHA-256 of the tool.
        remote: where the tool is on the device.
        deadline: by ``time.monotonic``.
    """

    call: Call
    tool: str
    digest: str
    remote: str
    deadline: float
    events: list[Event] = field(default_factory=list)

    def emit(self, event: str, **fields: Any) -> None:
        """Report an event."""
        self.events.append({"event": event, **fields})
        if self.call.on_event is not None:
            self.call.on_event(self.events[-1])

    def run(self, arguments: Sequence[str]) -> tuple[list[str], int]:
        """Run the tool on the cores that the target names; the lines that it wrote, and its exit status.

        Raises:
            ToolFailed: it ended by a signal, ran out of memory, or took too long.
            TargetError: it cannot be started on the device.
        """
        lines: list[str] = []
        cores = self.call.target.settings.get("cores")
        pin = () if cores is None else ("taskset", f"{core_mask(cores):x}")
        ended = self.call.connection.run(
            ("sh", "-c", _RUN, "sh", self.remote, *pin, self.remote, *arguments),
            timeout_s=self._left_s(),
            on_line=lambda line: lines.append(line.rstrip("\r")),
        )
        if ended.lost:
            raise _Ended(ended)
        if ended.timed_out:
            raise ToolFailed("timeout", f"{self.tool} took too long; {tail(lines)}")
        if ended.returncode in CANNOT_START:
            raise TargetError(
                f"{self.tool} cannot be started on '{self.call.target.device}'",
                why=tail(lines),
                fix=f"give a {self.tool} that is built for this device, with its libraries linked statically",
            )
        if ended.returncode != 0 and any("bad_alloc" in line for line in lines):
            raise ToolFailed("out-of-memory", tail(lines))
        if ended.returncode < 0:
            raise ToolFailed(describe_end(ended)[0], tail(lines))
        return lines, ended.returncode

    def new_file(self) -> str:
        """A path on the device at which there is no file, nor at any that begins with it."""
        return f"{self.call.connection.scratch()}/{uuid4().hex}"

    def take_files(self, prefix: str) -> list[str]:
        """The lines of the files on the device whose paths begin so; the files are removed."""
        lines: list[str] = []
        ended = self.call.connection.run(
            ("sh", "-c", _TAKE, "sh", prefix), timeout_s=self._left_s(), on_line=lines.append
        )
        if ended.lost:
            raise _Ended(ended)
        return lines

    def conditions(self) -> Conditions:
        """The state of the device now."""
        return read_conditions(self.call.connection)

    def _left_s(self) -> float:
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise _Ended(Completed(-9, "", timed_out=True))
        return left_s if self.call.silence_s is None else min(left_s, self.call.silence_s)


@dataclass(frozen=True)
class NativeRuntime(Runtime):
    """A runtime that is driven by the command-line tool of its makers.

    Attributes:
        tool: the tool's name.
        usage: a part of what the tool prints when it is asked for its usage.
        canary: the canary as a file of the runtime.
    """

    tool: str
    usage: str
    canary: Path | None

    needs_python: ClassVar[bool] = False
    usage_arguments: ClassVar[tuple[str, ...]] = ("--help",)

    @abstractmethod
    def time(self, session: Session, model: str, protocol: MeasuringProtocol) -> Fields:
        """Time a model in one process: the fields of a ``result`` but ``before`` and ``after``.

        Args:
            session: runs the tool.
            model: path on the device.
            protocol: how often and how long.

        Raises:
            ToolFailed: it gave no times.
            TargetError: the tool is not one that can be used.
        """

    def placement(self, session: Session, model: str, protocol: MeasuringProtocol) -> Placement | None:
        """Where the operations of a model run, of a tool that tells it only in another process.

        Raises:
            ToolFailed: it did not tell.
        """
        return None

    @abstractmethod
    def profile(
        self, session: Session, model: str, protocol: MeasuringProtocol
    ) -> tuple[list[Fields], list[int]]:
        """The operations of a model with their times, and the times of whole inferences in the same run.

        Raises:
            ToolFailed: the tool gave no profile.
        """

    def check(self, target: Target) -> None:
        """Refuse a precision or option that the runtime does not have, and cores that are not a list."""
        super().check(target)
        if "cores" in target.settings:
            core_mask(target.settings["cores"])

    def exchange(self, call: Call, request: Request) -> Reply:
        """Push the tool, run it for every model of the request, and report what it says as events."""
        from devices.inventory.devices import find_device  # which imports the runtimes

        own = find_device(call.target.device).tools
        path = native_tool(self.tool, read_platform(call.connection), own)
        deadline = time.monotonic() + call.timeout_s
        session = Session(call, self.tool, file_digest(path), call.connection.push(path), deadline)
        try:
            match request:
                case Identify():
                    self._identify(session)
                case Measure(artifacts, protocol):
                    self._measure(session, artifacts, protocol)
                case ProfileOperations(artifact, protocol):
                    self._profile(session, artifact, protocol)
                case Sustain():
                    self._sustain(session, request)
                case _:
                    raise MeasurementError(
                        f"{self.tool} on '{call.target.device}' gives no outputs for given inputs",
                        why="it makes up its inputs",
                        fix="check the outputs on a device with Python",
                    )
        except _Ended as end:
            return Reply(tuple(session.events), end.ended)
        return Reply(tuple(session.events), Completed(0, ""))

    def _identify(self, session: Session) -> None:
        target = session.call.target
        try:
            lines, _ = session.run(self.usage_arguments)
        except ToolFailed as failure:
            lines = [f"{failure.code}: {failure}"]
        if not any(self.usage in line for line in lines):
            raise TargetError(
                f"{self.tool} does not run on '{target.device}', or is another program",
                why=f"asked for its usage, it gave: {tail(lines)}",
                fix=f"give a {self.tool} that is built for this device",
            )
        device = identify_device(session.call.connection)
        if self.delegate(target) == self.delegate(replace(target, options=())):
            device["accelerator"] = ""
        session.emit(
            "identity",
            runtime={"version": UNKNOWN_VERSION, "binary_digest": session.digest},
            device=device,
        )

    def _measure(self, session: Session, artifacts: Sequence[Path], protocol: MeasuringProtocol) -> None:
        session.emit("ready", process_start_ns=None)
        self._time_canary(session, protocol)
        for number, artifact in enumerate(artifacts):
            session.emit("started", job=number)
            try:
                model = session.call.connection.push(artifact)
                before = session.conditions()
                fields = self.time(session, model, protocol)
                with contextlib.suppress(ToolFailed):
                    placement = self.placement(session, model, protocol)
                    fields |= {} if placement is None else {"placement": asdict(placement)}
                states = {"before": asdict(before), "after": asdict(session.conditions())}
                session.emit("result", job=number, **fields, **states)
            except ToolFailed as failure:
                session.emit("failed", job=number, code=failure.code, detail=str(failure))
            if number + 1 == len(artifacts) // 2:
                self._time_canary(session, protocol)
        self._time_canary(session, protocol)

    def _time_canary(self, session: Session, protocol: MeasuringProtocol) -> None:
        if self.canary is not None:
            try:
                fields = self.time(session, session.call.connection.push(self.canary), protocol)
            except ToolFailed:
                return  # the canary is a check of the device; the models have errors of their own
            session.emit("canary", samples_ns=_samples(fields))

    def _profile(self, session: Session, artifact: Path, protocol: MeasuringProtocol) -> None:
        session.emit("ready", process_start_ns=None)
        try:
            operations, total_ns = self.profile(session, session.call.connection.push(artifact), protocol)
            session.emit("operations", operations=operations, total_ns=total_ns)
        except ToolFailed as failure:
            session.emit("failed", code=failure.code, detail=str(failure))

    def _sustain(self, session: Session, request: Sustain) -> None:
        """A process for each window: the pauses in which the model is loaded are in no window."""
        model = session.call.connection.push(request.artifact)
        window = replace(
            request.protocol,
            warmup_count=1,
            warmup_ns=0,
            min_count=1,
            min_ns=request.window_ns,
            max_count=10**9,
            max_ns=max(request.window_ns, request.protocol.max_ns),
        )
        session.emit("ready", process_start_ns=None)
        begin_ns = time.monotonic_ns()
        try:
            while (start_ns := time.monotonic_ns() - begin_ns) < request.duration_ns:
                samples_ns = _samples(self.time(session, model, window))
                session.emit(
                    "window",
                    start_ns=start_ns,
                    samples_ns=samples_ns,
                    conditions=asdict(session.conditions()),
                )
            session.emit("finished")
        except ToolFailed as failure:
            session.emit("failed", code=failure.code, detail=str(failure))


UNKNOWN_VERSION = "unknown"
"""The tools do not tell their version; the digest of the binary identifies them."""


def core_mask(text: str) -> int:
    """Cores as in ``0-3,6``, as a mask of bits.

    Raises:
        TargetError: the text has another form.
    """
    mask = 0
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        cores = range(int(match[1]), int(match[2] or match[1]) + 1) if match is not None else range(0)
        if not cores:
            raise TargetError(f"cores={text} is not a list of cores", fix="write cores=4-7 or cores=0-3,6")
        mask |= sum(1 << core for core in cores)
    return mask


def _samples(fields: Fields) -> list[int]:
    """The samples, or the median of a tool that keeps them to itself."""
    if fields["samples_ns"]:
        return list(fields["samples_ns"])
    return [value_ns for level, value_ns in fields["summary"]["quantiles_ns"] if level == 0.5]


def tail(lines: Sequence[str]) -> str:
    """The last lines that hold anything, as one."""
    said = [line.strip() for line in lines if line.strip()]
    return "; ".join(said[-DETAIL_LINES:]) or "it wrote nothing"
