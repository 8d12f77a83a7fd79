"""Runtimes whose makers publish a command-line tool, for devices without Python.

The tool is run on the device once for every model of a launch; what it prints is turned into the events that
the agent would have sent. The canary is run before, between and after the models as the agent runs it, and
the shell reads the conditions of the device. A runtime says where its tool is, how a file is loaded, and what
the tool prints.
"""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar
from uuid import uuid4

from devices.agent.agent import parse_cores
from devices.artifacts import push_artifact
from devices.connections import Completed, first_lines
from devices.errors import MeasurementError, TargetError
from devices.inputs import NOTHING, Given
from devices.measurement.measurement import Placement
from devices.measurement.protocol import MeasuringProtocol
from devices.runtimes.answers import MALFORMED
from devices.runtimes.base import (
    Call,
    Event,
    Identify,
    Measure,
    Predict,
    ProfileOperations,
    Reply,
    Request,
    Runtime,
    Sustain,
    describe_end,
)
from devices.runtimes.capabilities import Capabilities, Support
from devices.runtimes.native.shell import identify_device, read_conditions
from devices.target import Target
from devices.words import listed

Fields = dict[str, Any]

CANNOT_START = (126, 127)
"""Exit statuses of a shell that found no such command, or could not start it."""
SHAPES_ALONE = Support(True, "shapes alone, of all inputs: the tool makes up the values")
_SEPARATORS = ",:;= "
"""What separates names, shapes and options on the command lines of the tools."""
_MOST_CHARACTERS = 64 << 20
"""Of what a tool writes so much is looked at."""
DETAIL_LINES = 12
"""Lines of a tool's last output that explain a failure."""
CORES = "run on these cores only, as in cores=4-7"

# Standard error goes where the results go: what a delegate took is told among the errors, and connections
# hand over the lines of standard output only.
_RUN = 'tool=$1; shift; exec 2>&1; [ -x "$tool" ] || chmod 700 "$tool"; exec "$@"'
_TAKE = 'cat "$1"*; rm -f "$1"*'


class ToolFailed(Exception):
    """A run of the tool gave no result: a machine-readable code, and what it said last."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(detail)


class ExchangeEnded(Exception):
    """The exchange is over before its end: the device is lost, or the time is up."""

    def __init__(self, ended: Completed) -> None:
        self.ended = ended
        super().__init__()


@dataclass(frozen=True)
class Tool:
    """A tool on a device.

    Attributes:
        path: there.
        version: as far as it tells.
        digest: SHA-256 of what runs.
    """

    name: str
    path: str
    version: str
    digest: str


ToolT = TypeVar("ToolT", bound=Tool)


@dataclass
class ToolSession:
    """One exchange: what it has told so far, and how much time is left.

    Attributes:
        deadline: by ``time.monotonic``.
        given: to the model that is under way.
    """

    call: Call
    deadline: float
    given: Given = NOTHING
    events: list[Event] = field(default_factory=list)

    def emit(self, event: str, **fields: Any) -> None:
        """Report an event."""
        self.events.append({"event": event, **fields})
        if self.call.on_event is not None:
            self.call.on_event(self.events[-1])

    def run(
        self, tool: Tool, arguments: Sequence[str], *, on_line: Callable[[str], None] | None = None
    ) -> tuple[list[str], int]:
        """Run a tool on the cores that the target names; the lines that it wrote, and its exit status.

        Raises:
            ToolFailed: it ended by a signal, ran out of memory, or took too long.
            TargetError: it cannot be started on the device.
        """
        lines: list[str] = []

        def read(line: str) -> None:
            lines.append(line)
            if on_line is not None:
                on_line(line)

        cores = self.call.target.settings.get("cores")
        pin = () if cores is None else ("taskset", f"{core_mask(cores):x}")
        ended = self._run(("sh", "-c", _RUN, "sh", tool.path, *pin, tool.path, *arguments), read)
        if ended.timed_out:
            raise ToolFailed("timeout", f"{tool.name} took too long; {tail(lines)}")
        if ended.returncode in CANNOT_START:
            raise TargetError(
                f"{tool.name} cannot be started on '{self.call.target.device}'",
                why=tail(lines),
                fix=f"give a {tool.name} that is built for this device, with its libraries linked statically",
            )
        if ended.returncode != 0 and any("bad_alloc" in line for line in lines):
            raise ToolFailed("out-of-memory", tail(lines))
        if ended.returncode < 0:
            raise ToolFailed(describe_end(ended)[0], tail(lines))
        return lines, ended.returncode

    def script(self, script: str, *arguments: str) -> list[str]:
        """The lines that a constant shell script wrote, whatever its exit status."""
        lines: list[str] = []
        self._run(("sh", "-c", script, "sh", *arguments), lines.append)
        return lines

    def new_file(self) -> str:
        """A path on the device at which there is no file, nor at any that begins with it."""
        return f"{self.call.connection.scratch()}/{uuid4().hex}"

    def take_files(self, prefix: str) -> list[str]:
        """The lines of the files on the device whose paths begin so; the files are removed."""
        return self.script(_TAKE, prefix)

    def _run(self, argv: Sequence[str], on_line: Callable[[str], None]) -> Completed:
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise ExchangeEnded(Completed(-9, "", timed_out=True))
        limit_s = left_s if self.call.silence_s is None else min(left_s, self.call.silence_s)
        ended = self.call.connection.run(
            argv, timeout_s=limit_s, on_line=first_lines(on_line, _MOST_CHARACTERS)
        )
        if ended.lost:
            raise ExchangeEnded(ended)
        return ended


@dataclass(frozen=True)
class NativeRuntime(Runtime, Generic[ToolT]):
    """A runtime that is driven by the command-line tool of its makers.

    Attributes:
        canary: the canary as a file of the runtime.
    """

    canary: Path

    needs_python: ClassVar[bool] = False
    inputs: ClassVar[Support] = Support(False, "the tool makes up its inputs")
    operations: ClassVar[Support] = Support(True)
    no_outputs: ClassVar[str] = "the tool makes up its inputs"

    @abstractmethod
    def find(self, session: ToolSession) -> ToolT:
        """The tool on the device of the session, put there if need be.

        Raises:
            TargetError: there is none that works.
        """

    @abstractmethod
    def time(self, session: ToolSession, tool: ToolT, model: str, protocol: MeasuringProtocol) -> Fields:
        """Time a model in one process: the fields of a ``result`` but ``before`` and ``after``.

        Args:
            session: runs the tool.
            tool: what ``find`` gave.
            model: path on the device, which ``load`` gave.
            protocol: how often and how long.

        Raises:
            ToolFailed: it gave no times.
            TargetError: the tool is not one that can be used.
        """

    @abstractmethod
    def profile(
        self, session: ToolSession, tool: ToolT, model: str, protocol: MeasuringProtocol
    ) -> tuple[list[Fields], list[int]]:
        """The operations of a model with their times, and the times of whole inferences in the same run.

        Raises:
            ToolFailed: the tool gave no profile.
        """

    def identity(self, session: ToolSession, tool: ToolT) -> Fields:
        """The device, as the fields of its identity.

        Raises:
            TargetError: the tool is another program than its name says.
        """
        return identify_device(session.call.connection)

    def load(self, session: ToolSession, tool: ToolT, artifact: Path) -> str:
        """Put a file where the tool can load it; its path there.

        Raises:
            ToolFailed: the file cannot be loaded.
        """
        return push_artifact(session.call.connection, artifact)

    def placement(
        self, session: ToolSession, tool: ToolT, model: str, protocol: MeasuringProtocol
    ) -> Placement | None:
        """Where the operations of a model run, of a tool that tells it only in another process.

        Raises:
            ToolFailed: it did not tell.
        """
        return None

    def conditions(self, session: ToolSession) -> Fields:
        """The state of the device now, as the fields of ``Conditions``."""
        return asdict(read_conditions(session.call.connection))

    def sustain(self, session: ToolSession, tool: ToolT, model: str, request: Sustain) -> None:
        """Emit a ``window`` for each window of time: a process for each, whose start is in none.

        Raises:
            ToolFailed: the model does not run any more.
        """
        protocol = replace(
            request.protocol,
            warmup_count=1,
            warmup_ns=0,
            min_count=1,
            min_ns=request.window_ns,
            max_count=10**9,
            max_ns=max(request.window_ns, request.protocol.max_ns),
        )
        begin_ns = time.monotonic_ns()
        while (start_ns := time.monotonic_ns() - begin_ns) < request.duration_ns:
            fields = self.time(session, tool, model, protocol)
            samples_ns = samples_of(fields)
            summary = fields.get("summary")
            session.emit(
                "window",
                start_ns=start_ns,
                count=len(samples_ns) if summary is None else summary["count"],
                samples_ns=thinned(samples_ns, request.protocol),
                conditions=self.conditions(session),
            )

    def capabilities(self, target: Target) -> Capabilities:
        """Everything but given values and outputs for them."""
        return Capabilities(
            operations=self.operations, inputs=self.inputs, outputs=Support(False, self.no_outputs)
        )

    def check(self, target: Target) -> None:
        """Refuse a precision or option that the runtime does not have, and cores that are not a list."""
        super().check(target)
        if "cores" in target.settings:
            core_mask(target.settings["cores"])

    def exchange(self, call: Call, request: Request) -> Reply:
        """Find the tool, run it for every model of the request, and report what it says as events."""
        if isinstance(request, Predict):
            raise MeasurementError(
                f"'{call.target}' gives no outputs for given inputs",
                why=self.no_outputs,
                fix="take the outputs on a target with Python, without +native",
            )
        session = ToolSession(call, time.monotonic() + call.timeout_s)
        try:
            tool = self.find(session)
            match request:
                case Identify():
                    device = self.identity(session, tool)
                    runtime = {"version": tool.version, "binary_digest": tool.digest}
                    session.emit("identity", runtime=runtime, device=device)
                case Measure():
                    self._measure(session, tool, request)
                case ProfileOperations() | Sustain():
                    self._ask_of_one(session, tool, request)
        except ExchangeEnded as end:
            return Reply(tuple(session.events), end.ended)
        return Reply(tuple(session.events), Completed(0, ""))

    def _measure(self, session: ToolSession, tool: ToolT, request: Measure) -> None:
        artifacts, protocol = request.artifacts, request.protocol
        session.emit("ready", process_start_ns=None)
        self._time_canary(session, tool, protocol)
        for number, artifact in enumerate(artifacts):
            session.emit("started", job=number)
            try:
                session.given = _shapes_alone(request.given[number]) if request.given else NOTHING
                model = self.load(session, tool, artifact)
                before = self.conditions(session)
                with _understood(tool):
                    fields = self.time(session, tool, model, protocol)
                with contextlib.suppress(ToolFailed), _understood(tool):
                    placement = self.placement(session, tool, model, protocol)
                    fields |= {} if placement is None else {"placement": asdict(placement)}
                after = self.conditions(session)
                told = _told(session.given)
                session.emit("result", job=number, **fields, before=before, after=after, inputs=told)
            except ToolFailed as failure:
                session.emit("failed", job=number, code=failure.code, detail=str(failure))
            if number + 1 == len(artifacts) // 2:
                self._time_canary(session, tool, protocol)
        self._time_canary(session, tool, protocol)

    def _time_canary(self, session: ToolSession, tool: ToolT, protocol: MeasuringProtocol) -> None:
        session.given = NOTHING
        try:
            with _understood(tool):
                fields = self.time(session, tool, self.load(session, tool, self.canary), protocol)
        except ToolFailed:
            return  # the canary is a check of the device; the models have errors of their own
        session.emit("canary", samples_ns=samples_of(fields))

    def _ask_of_one(self, session: ToolSession, tool: ToolT, request: ProfileOperations | Sustain) -> None:
        session.emit("ready", process_start_ns=None)
        session.emit("started", job=0)
        try:
            session.given = _shapes_alone(request.given)
            model = self.load(session, tool, request.artifact)
            if isinstance(request, Sustain):
                with _understood(tool):
                    self.sustain(session, tool, model, request)
                session.emit("finished")
            else:
                with _understood(tool):
                    operations, total_ns = self.profile(session, tool, model, request.protocol)
                session.emit("operations", operations=operations, total_ns=total_ns)
        except ToolFailed as failure:
            session.emit("failed", code=failure.code, detail=str(failure))


@contextlib.contextmanager
def _understood(tool: Tool) -> Iterator[None]:
    """What looks like a number may be none, such as ``1.2.3``, or too large for one."""
    try:
        yield
    except (ValueError, ArithmeticError, LookupError) as error:
        raise ToolFailed(MALFORMED, f"what {tool.name} says cannot be read: {error!r}") from error


def _shapes_alone(given: Given) -> Given:
    """What is given, if that is nothing but shapes.

    Raises:
        ToolFailed: values or a signature are given.
    """
    odd = [each.name for each in given.inputs if set(each.name) & set(_SEPARATORS)]
    if odd:
        raise ToolFailed("not-supported", f"the tool cannot be told of an input whose name is {odd[0]!r}")
    others = [each.name for each in given.inputs if each.values is not None or each.shape is None]
    if others or given.signature:
        what = f"values of {listed(others)}" if others else "a signature"
        raise ToolFailed(
            "not-supported", f"{what} cannot be given: the tool makes up values; give shapes alone"
        )
    return given


def _told(given: Given) -> list[Fields]:
    """The inputs whose shapes were given; of others the tool does not tell."""
    return [
        {
            "name": each.name,
            "dtype": "",
            "shape": each.shape,
            "declared": ["?"] * len(each.shape or ()),
            "fill": "made up by the tool",
            "given": True,
        }
        for each in given.inputs
    ]


def core_mask(text: str) -> int:
    """Cores as in ``0-3,6``, as a mask of bits.

    Raises:
        TargetError: the text has another form.
    """
    try:
        return sum(1 << core for core in parse_cores(text))
    except ValueError as error:
        raise TargetError(str(error), fix="write cores=4-7 or cores=0-3,6") from error


def samples_of(fields: Fields) -> list[int]:
    """The samples of a result, or the median of a tool that keeps them to itself."""
    if fields["samples_ns"]:
        return list(fields["samples_ns"])
    return [value_ns for level, value_ns in fields["summary"]["quantiles_ns"] if level == 0.5]


def thinned(samples_ns: Sequence[int], protocol: MeasuringProtocol) -> list[int]:
    """At most the protocol's ``max_count`` of some samples, evenly chosen, as the agent does."""
    return list(samples_ns[:: max(1, -(-len(samples_ns) // protocol.max_count))])


def tail(lines: Sequence[str]) -> str:
    """The last lines that hold anything, as one."""
    said = [line.strip() for line in lines if line.strip()]
    return "; ".join(said[-DETAIL_LINES:]) or "it wrote nothing"
