"""Runtimes that Lathe's agent drives: a fresh Python process on the device, with an engine file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from devices.artifacts import push_artifact
from devices.connections import Connection
from devices.errors import BrokenRuntimeError, TargetError
from devices.inputs import NOTHING, Given
from devices.installing import how_to_install
from devices.runtimes.answers import Events
from devices.runtimes.base import (
    Call,
    Identify,
    Measure,
    Predict,
    ProfileOperations,
    Reply,
    Request,
    Runtime,
    Sustain,
)
from devices.runtimes.capabilities import Capabilities, Support
from devices.target import Target

NO_PROFILER = Support(False, "the runtime has no profiler of operations")
FOLDER = Path(__file__).parent.parent / "agent"


@dataclass(frozen=True)
class AgentRuntime(Runtime):
    """A runtime with a Python module.

    ``engine`` is a Python file (3.8+, standard library, numpy and the runtime only) that is pushed to the
    device and imported by the agent, after ``modules``. Importing it must raise ModuleNotFoundError when the
    runtime is not installed, as an ``import`` does. It provides::

        def version() -> str
        def binaries() -> list[str]                     # native files whose content identifies the runtime
        class Model:
            def __init__(self, path: str, settings: dict)  # load; for settings see below
            inputs: list[tuple[tuple[int, ...], str]]      # shape and dtype of each input, as used
            def set_inputs(self, arrays) -> None           # copy into buffers that the runtime owns
            def run(self) -> None                          # one inference, complete on return: this is timed
            def outputs(self) -> list                      # copies of the last outputs
            def placement(self) -> list[dict] | None       # where, nodes, partitions; asked after timing

    where the settings are ``threads`` and ``precision`` of the target, its ``options`` by name,
    ``delegate``, where it wants the operations, and what the model is given, as ``devices/agent/inputs.py``
    says. ``run`` may be called many times after one ``set_inputs`` and
    gives the same outputs each time; no copy between the caller and the runtime is in it, so that times of
    blocks add up. An engine may also provide::

        class Model:
            described: list[tuple[str, tuple[int | str, ...]]]  # name and declared sizes of each input
            def copy_in(self) -> None                      # inputs to the accelerator once more, complete
            def copy_out(self) -> None                     # outputs back to the processor, complete
            def warnings(self) -> list[dict]               # code and detail; asked after timing
        def operations(path, settings, arrays, count) -> tuple[list[dict], list[int]]
            # profile `count` inferences: name, kind, where, samples_ns of each operation in order of
            # execution; samples_ns of the whole inferences
        def accelerator(settings) -> str                   # name and driver of the GPU; "" for none
        def accelerator_conditions(settings) -> dict       # gpu_* of Conditions
        def canary(settings) -> Model                      # where no canary file is given
        def check(settings) -> None                        # ValueError: an option that cannot be had, and why

    Attributes:
        engine: the engine file on the host.
        extra: the extra of the distribution that installs the runtime.
        package: the package of the runtime itself, for a device.
        delegates: where each choosing option wants the operations; ``""`` is for a target without one.
        operations: whether the engine has a profiler of operations for a target.
        canary: the canary as a file of the runtime.
        modules: files that the engine imports as ``from .stem import ...``, in the order in which they import
            each other; ``.machine`` and ``.inputs`` are always there.
    """

    engine: Path
    extra: str
    package: str
    delegates: Callable[[Target], str]
    operations: Callable[[Target], Support] = lambda target: NO_PROFILER
    canary: Path | None = None
    modules: tuple[Path, ...] = ()

    needs_python: ClassVar[bool] = True

    def delegate(self, target: Target) -> str:
        """Where the target wants every operation to run."""
        return self.delegates(target)

    def capabilities(self, target: Target) -> Capabilities:
        """Everything, but operations only where the engine has a profiler."""
        return Capabilities(operations=self.operations(target))

    def files(self) -> dict[str, Path]:
        """What the agent imports, by the name under which it does, in order."""
        modules = (FOLDER / "machine.py", FOLDER / "inputs.py", *self.modules)
        return {**{path.stem: path for path in modules}, "engine": self.engine}

    def exchange(self, call: Call, request: Request) -> Reply:
        """Start a fresh agent, hand it the request, and collect its events until it ends, or one is odd."""
        events = Events()

        def read(line: str) -> None:
            event = events.take(line)
            if event is not None and call.on_event is not None:
                call.on_event(event)

        connection, target = call.connection, call.target
        if connection.python is None:
            raise TargetError(
                f"'{target.device}' has no Python for {self.name} to be driven from",
                why="Lathe's agent is a Python program",
                fix=f"name an interpreter as 'python' under [devices.{target.device}] in devices.toml",
            )
        settings = {
            "threads": target.threads,
            "precision": target.precision,
            "options": dict(target.settings),
            "delegate": self.delegate(target),
        }
        remote_outputs = f"{connection.scratch()}/outputs.npy" if isinstance(request, Predict) else ""
        message = {
            **self._message(call, request, remote_outputs),
            "files": {name: connection.push(path) for name, path in self.files().items()},
            "settings": settings,
        }
        agent = connection.push(FOLDER / "agent.py")
        message["parent"] = os.getpid() if connection.shares_clock else None
        message["spawned_ns"] = time.monotonic_ns() if connection.shares_clock else None
        ended = connection.run(
            (*connection.python, agent),
            stdin=json.dumps(message).encode(),
            timeout_s=call.timeout_s,
            silence_s=call.silence_s,
            on_line=read,
            stop=events.over,
        )
        reply = Reply(tuple(events.found), ended)
        for event in reply.all("fatal"):
            detail = str(event.get("detail", ""))
            if event.get("code") == "bad-option":
                raise TargetError(
                    f"'{target}' cannot be had", why=detail, fix="write another option, or leave it out"
                )
            # Every engine imports numpy besides its runtime.
            numpy_lacks = event.get("lacking") == "numpy" != self.package
            broken = event.get("code") == "runtime-broken" or numpy_lacks
            raise self.unusable(target.device, detail, broken=broken)
        if isinstance(request, Predict) and reply.all("outputs"):
            connection.pull(remote_outputs, request.outputs)
        return reply

    def unusable(self, device: str, detail: str, *, broken: bool) -> TargetError:
        """The error for a device on which the runtime is not installed, or is and cannot be loaded."""
        fix = (
            how_to_install(self.extra)
            if device == "host"
            else f"install {self.package} for the Python that devices.toml names for '{device}'"
        )
        if not broken:
            return TargetError(f"{self.name} is not installed on '{device}'", why=detail, fix=fix)
        mend = f"install what is missing there; or remove {self.package} and install it anew: {fix}"
        return BrokenRuntimeError(f"{self.name} cannot be loaded on '{device}'", why=detail, fix=mend)

    @staticmethod
    def _job(connection: Connection, artifact: Path, given: Given) -> dict[str, Any]:
        return {"artifact": push_artifact(connection, artifact), "given": given.message(connection.push)}

    def _message(self, call: Call, request: Request, remote_outputs: str) -> dict[str, Any]:
        push = call.connection.push
        match request:
            case Identify():
                return {"command": "identify"}
            case Measure(artifacts, protocol, given):
                pairs = zip(artifacts, given or [NOTHING] * len(artifacts), strict=True)
                return {
                    "command": "measure",
                    "jobs": [self._job(call.connection, *pair) for pair in pairs],
                    "canary": None if self.canary is None else push(self.canary),
                    "protocol": asdict(protocol),
                }
            case ProfileOperations(artifact, protocol, given):
                job = self._job(call.connection, artifact, given)
                return {"command": "operations", "job": job, "protocol": asdict(protocol)}
            case Sustain(artifact, protocol, duration_ns, window_ns, given):
                return {
                    "command": "sustain",
                    "job": self._job(call.connection, artifact, given),
                    "protocol": asdict(protocol),
                    "duration_ns": duration_ns,
                    "window_ns": window_ns,
                }
            case Predict(artifact, inputs, _):
                return {
                    "command": "predict",
                    "artifact": push_artifact(call.connection, artifact),
                    "inputs": [push(path) for path in inputs],
                    "outputs": remote_outputs,
                }
