"""What the host knows of a runtime: the artifacts it takes, the targets it can be, how it is asked."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from devices.connections import Completed, Connection
from devices.errors import MeasurementError, TargetError
from devices.inputs import NOTHING, Given
from devices.measurement.protocol import MeasuringProtocol
from devices.runtimes.answers import MALFORMED, checked
from devices.runtimes.capabilities import Capabilities
from devices.target import Target

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Identify:
    """Asks for one ``identity``: ``runtime`` (version, binary_digest) and ``device`` (a DeviceIdentity)."""


@dataclass(frozen=True)
class Measure:
    """Asks to time files one after the other in one process (one launch).

    Answered by ``ready`` (process_start_ns), then per file, whose number is ``job``: ``started``, and
    ``result`` (the fields of a Launch but process_start_ns and canary_ns) or ``failed`` (code, detail). The
    canary, a small fixed model, is timed before the first file, after the middle one and after the last, and
    reported as ``canary`` (samples_ns) each time.

    Attributes:
        given: what each file is given, in their order; empty where none is given anything.
    """

    artifacts: tuple[Path, ...]
    protocol: MeasuringProtocol
    given: tuple[Given, ...] = ()


@dataclass(frozen=True)
class ProfileOperations:
    """Asks for the time of each operation, in a run of its own since profiling slows a model down.

    Answered by ``operations`` (operations: a list of name, kind, where, samples_ns; total_ns: the samples
    of whole inferences in the same run) or ``failed``.
    """

    artifact: Path
    protocol: MeasuringProtocol
    given: Given = NOTHING


@dataclass(frozen=True)
class Sustain:
    """Asks to run one file without pause, for heat to show.

    Answered by a ``window`` every ``window_ns`` (start_ns since the first, count of inferences, samples_ns of
    at most the protocol's ``max_count`` of them, evenly chosen, conditions), and ``finished`` or ``failed``.
    A tool that keeps its samples to itself gives their median as the only one.
    """

    artifact: Path
    protocol: MeasuringProtocol
    duration_ns: int
    window_ns: int
    given: Given = NOTHING


@dataclass(frozen=True)
class Predict:
    """Asks to run every row of ``inputs``, an .npy file for each input of the model, as a batch of one.

    All outputs of the model, flattened and one behind the other, are written to ``outputs`` on the host, a
    row for each, also as .npy. Answered by ``outputs`` (rows, and the values of each output) or ``failed``.
    """

    artifact: Path
    inputs: tuple[Path, ...]
    outputs: Path


Request = Identify | Measure | ProfileOperations | Sustain | Predict


@dataclass(frozen=True)
class Call:
    """Where a request goes and how long it may take.

    Attributes:
        connection: to the device of the target.
        target: what is asked.
        timeout_s: the longest that the whole exchange may take.
        silence_s: the longest time without an event.
        on_event: called with each event as it comes.
        tools: paths of native tools by name, as the device's entry in devices.toml gives them.
    """

    connection: Connection
    target: Target
    timeout_s: float
    silence_s: float | None = None
    on_event: Callable[[Event], None] | None = None
    tools: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """The events of one exchange, each an object with its kind in ``event``, and how its process ended.

    Whoever makes one, events are those that ``devices.runtimes.answers`` admits.
    """

    events: tuple[Event, ...]
    ended: Completed

    def __post_init__(self) -> None:
        object.__setattr__(self, "events", checked(self.events))

    def all(self, kind: str) -> list[Event]:
        """The events of one kind, in order."""
        return [event for event in self.events if event["event"] == kind]

    def only(self, kind: str) -> Event:
        """The one event of a kind.

        Raises:
            MeasurementError: there is none, or more; with how the process ended.
        """
        found = self.all(kind)
        if len(found) != 1:
            code, detail = self.end
            raise MeasurementError(f"the device gave no {kind} ({code})", why=detail)
        return found[0]

    @property
    def end(self) -> tuple[str, str]:
        """Why there are no more events: code and detail."""
        for event in self.all(MALFORMED):
            return MALFORMED, event["detail"]
        return describe_end(self.ended)


SIGNALS: Mapping[int, str] = {
    signal.SIGILL: "it uses an instruction that this processor lacks: install a build of the runtime for it",
    signal.SIGABRT: "the runtime gave up",
    signal.SIGBUS: "a file became shorter while it was read, or an address does not fit this processor",
    signal.SIGKILL: "it was killed, often because memory ran out",
    signal.SIGSEGV: "the runtime used memory that is not its own: a fault of it, or of the file",
}
"""What it means that a signal ended a process."""


def describe_end(ended: Completed) -> tuple[str, str]:
    """A machine-readable code for how a process ended without an answer, and the tail of its errors."""
    if ended.lost:
        code = "device-lost"
    elif ended.timed_out:
        code = "timeout"
    elif ended.returncode < 0:
        code = f"crashed-signal-{-ended.returncode}"
    elif ended.returncode > 0:
        code = f"crashed-exit-{ended.returncode}"
    else:
        code = "truncated-output"
    meant = "" if ended.lost or ended.timed_out else SIGNALS.get(-ended.returncode, "")
    said = ended.stderr_tail or "nothing was written on standard error"
    return code, f"{meant}; {said}" if meant else said


@dataclass(frozen=True)
class Runtime(ABC):
    """An inference engine as seen from the host.

    There are two kinds: ``AgentRuntime`` sends Lathe's agent and an engine file to a device with Python;
    a runtime with ``needs_python = False`` starts a command-line tool that its makers publish, and turns what
    that prints into the same events. ``tests/contracts/runtime.py`` holds the suite that every one passes.

    Attributes:
        name: as written in targets.
        suffixes: file suffixes of the artifacts it loads, in small letters.
        precisions: precisions that a target may name.
        options: options that a target may name, each with one line on what it does and, if it takes a
            value, how that is written.
    """

    name: str
    suffixes: tuple[str, ...]
    precisions: tuple[str, ...]
    options: Mapping[str, str]

    needs_python: ClassVar[bool]

    @abstractmethod
    def exchange(self, call: Call, request: Request) -> Reply:
        """Ask a device, and collect what it answers until it has ended.

        Raises:
            TargetError: the runtime is not installed on the device, or it cannot be reached.
            MeasurementError: the runtime cannot do what is asked.
        """

    @abstractmethod
    def capabilities(self, target: Target) -> Capabilities:
        """What this target can be asked for. It is answered without a device."""

    @abstractmethod
    def delegate(self, target: Target) -> str:
        """Where the target wants every operation to run, in the words of the runtime's placements."""

    def adapt(self, protocol: MeasuringProtocol) -> MeasuringProtocol:
        """The protocol as far as the runtime can follow it; it stands in the record of what was measured."""
        return protocol

    def loads(self, artifact: Path) -> bool:
        """Whether a file is of a kind that the runtime loads, by its suffix in small or capital letters."""
        return artifact.suffix.lower() in self.suffixes

    def check(self, target: Target) -> None:
        """Refuse a precision or option that the runtime does not have.

        Raises:
            TargetError: naming what is supported.
        """
        if target.precision not in self.precisions:
            raise TargetError(
                f"target '{target}' asks for {target.precision}",
                why=f"{self.name} is supported with {', '.join(self.precisions)}",
                fix=f"write {target.device}/{target.runtime}:{self.precisions[0]}@{target.threads}",
            )
        for name in target.settings:
            if name not in self.options:
                raise TargetError(
                    f"target '{target}' asks for the option '{name}'",
                    why=f"{self.name} has {', '.join(self.options) or 'no options'}",
                    fix=f"leave '+{name}' out",
                )
