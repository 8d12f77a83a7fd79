"""What a device may answer: types, ranges and lengths of every event. Nobody trusts it, nor its tools."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter, ValidationError, model_validator

from devices.untrusted import json_from

MALFORMED = "malformed-answer"
"""Code of what does not fit; and kind of the event that stands for it, with its ``detail``."""

MOST_EVENTS = 200_000
MOST_EVENT_CHARACTERS = 128 << 20
"""Of all events of one process together."""
_SHOWN = 200
_WEEK_NS = 7 * 24 * 3600 * 10**9

Ns = Annotated[int, Strict(), Field(ge=0, le=_WEEK_NS)]
Samples = Annotated[list[Ns], Field(max_length=20_000_000)]
Count = Annotated[int, Strict(), Field(ge=0, le=1 << 62)]
Whole = Annotated[int, Field(ge=-(1 << 62), le=1 << 62)]
Code = Annotated[str, Strict(), Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Text = Annotated[str, Strict(), Field(max_length=10_000)]
Detail = Annotated[str, Strict(), Field(max_length=1_000_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Conditions(_Part):
    load_1min: Annotated[float, Field(ge=0, le=1e9)] | None = None
    memory_available_bytes: Whole | None = None
    cpu_frequency_khz: Annotated[list[Whole], Field(max_length=100_000)] | None = None
    governor: Text | None = None
    temperature_millicelsius: Annotated[list[Whole], Field(max_length=100_000)] | None = None
    throttle_count: Whole | None = None
    battery_percent: Whole | None = None
    charging: bool | None = None
    thermal_status: Whole | None = None
    gpu_frequency_khz: Whole | None = None
    gpu_temperature_millicelsius: Whole | None = None
    gpu_throttle_reasons: Text | None = None
    boot_id: Text | None = None


class _Usage(_Part):
    wall_ns: Annotated[Ns, Field(ge=1)]
    own_cpu_ns: Whole
    waiting_ns: Whole | None = None
    other_cpu_ns: Whole | None = None
    stolen_ns: Whole | None = None
    clock_jump_ns: Whole = 0


class _Queue(_Part):
    waiting_ns: Count
    slices: Count


class _Placed(_Part):
    where: Text
    nodes: Count | None
    partitions: Count | None


class _Placement(_Part):
    delegate: Text
    parts: Annotated[list[_Placed], Field(max_length=10_000)]


class _Summary(_Part):
    count: Count
    mean_ns: Ns
    min_ns: Ns
    max_ns: Ns
    quantiles_ns: Annotated[
        tuple[tuple[Annotated[float, Field(ge=0, le=1)], Ns], ...], Field(max_length=1_000)
    ]


class _Warning(_Part):
    code: Code
    detail: Detail


class _Input(_Part):
    name: Text
    dtype: Text
    shape: Annotated[tuple[Count, ...], Field(max_length=64)]
    declared: Annotated[tuple[Text, ...], Field(max_length=64)]
    fill: Text
    assumed: Annotated[tuple[Annotated[int, Strict(), Field(ge=0, le=63)], ...], Field(max_length=64)] = ()
    given: bool = False

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if len(self.shape) != len(self.declared) or max(self.assumed, default=-1) >= len(self.shape):
            raise ValueError("the sizes of an input do not fit each other")
        return self


Inputs = Annotated[tuple[_Input, ...], Field(max_length=10_000)]


class _Runtime(_Part):
    version: Text
    binary_digest: Text


class _Device(_Part):
    machine: Text
    cpu: Text
    cores: Annotated[int, Strict(), Field(ge=1, le=100_000)]
    os: Text
    kernel: Text
    instance: Text
    accelerator: Text = ""
    emulated: bool = False


class _Operation(_Part):
    name: Text
    kind: Text
    where: Text
    samples_ns: Samples


class _Identity(_Part):
    event: Literal["identity"]
    runtime: _Runtime
    device: _Device


class _Ready(_Part):
    event: Literal["ready"]
    process_start_ns: Ns | None


class _Started(_Part):
    event: Literal["started"]
    job: Count


class _Result(_Part):
    event: Literal["result"]
    job: Count
    load_ns: Ns | None
    first_inference_ns: Ns | None
    samples_ns: Samples
    peak_memory_bytes: Count | None
    before: _Conditions
    after: _Conditions
    process_start_ns: Ns | None = None
    usage: _Usage | None = None
    queue: _Queue | None = None
    placement: _Placement | None = None
    to_device_ns: Samples = []
    from_device_ns: Samples = []
    summary: _Summary | None = None
    warnings: Annotated[list[_Warning], Field(max_length=1_000)] = []
    inputs: Inputs = ()

    @model_validator(mode="after")
    def _timed(self) -> Self:
        if not self.samples_ns and self.summary is None:
            raise ValueError("it has neither samples nor a summary")
        return self


class _Failed(_Part):
    event: Literal["failed"]
    job: Count | None = None
    code: Code
    detail: Detail
    inputs: Inputs = ()


class _Fatal(_Part):
    event: Literal["fatal"]
    code: Code
    detail: Detail
    lacking: Text = ""


class _Canary(_Part):
    event: Literal["canary"]
    samples_ns: Annotated[Samples, Field(min_length=1)]


class _Operations(_Part):
    event: Literal["operations"]
    operations: Annotated[list[_Operation], Field(max_length=1_000_000)]
    total_ns: Samples


class _Window(_Part):
    event: Literal["window"]
    start_ns: Ns
    count: Count
    samples_ns: Samples
    conditions: _Conditions


class _Finished(_Part):
    event: Literal["finished"]


class _Outputs(_Part):
    event: Literal["outputs"]
    rows: Count
    sizes: list[Count]


_Event = (
    _Identity | _Ready | _Started | _Result | _Failed | _Fatal | _Canary | _Operations | _Window | _Finished
    | _Outputs
)  # fmt: skip
_EVENT: TypeAdapter[_Event] = TypeAdapter(Annotated[_Event, Field(discriminator="event")])


def event_of(line: str) -> Mapping[str, Any] | None:
    """The event in a line of an agent, not yet checked; ``None`` where the line is not the agent's.

    A line that begins as one of the agent's does, and is none, is an event of kind ``MALFORMED``.
    """
    text = line.strip()
    if not text.startswith('{"event"'):
        return None
    try:
        value = json_from(text)
    except ValueError as error:
        return malformed(text, str(error))
    return value if isinstance(value, dict) else malformed(text, "it is no object")


class Events:
    """The events in the lines of one process as they come, each as ``checked`` has it.

    Attributes:
        found: so far.
        over: set once one did not fit; whatever comes behind it is left out.
    """

    def __init__(self) -> None:
        self.found: list[Mapping[str, Any]] = []
        self.over = threading.Event()
        self._left = MOST_EVENT_CHARACTERS

    def take(self, line: str) -> Mapping[str, Any] | None:
        """The event in a line; ``None`` where there is none, or nothing is taken any more."""
        if self.over.is_set() or (event := event_of(line)) is None:
            return None
        self._left -= len(line)
        if self._left < 0:
            event = malformed(line, f"all events have more than {MOST_EVENT_CHARACTERS:,} characters")
        event = _checked(event, len(self.found))
        self.found.append(event)
        if event["event"] == MALFORMED:
            self.over.set()
        return event


def checked(events: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Events with the fields that are known, each of its type and in its range.

    The first that does not fit is replaced by one of kind ``MALFORMED``, and those behind it are left out:
    who sent it is not to be believed any more.
    """
    found: list[Mapping[str, Any]] = []
    for event in events:
        found.append(_checked(event, len(found)))
        if found[-1]["event"] == MALFORMED:
            break
    return tuple(found)


def _checked(event: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    if event.get("event") == MALFORMED:
        return event
    if number == MOST_EVENTS:
        return malformed(repr(dict(event)), f"there are more than {MOST_EVENTS:,} events")
    try:
        return _EVENT.validate_python(event).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"][1:]))
        return malformed(repr(dict(event)), f"{where}: {first['msg']}" if where else first["msg"])


def malformed(text: str, why: str) -> Mapping[str, Any]:
    """The event that stands for one that does not fit."""
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
    return {"event": MALFORMED, "detail": f"{' '.join(why.split())[:_SHOWN]}; it begins {shown!r}"}
