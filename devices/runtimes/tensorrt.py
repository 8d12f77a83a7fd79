"""TensorRT by two ways: its Python API, and ``trtexec`` where there is no Python or by the option ``native``.

Both build an ``.onnx`` file on the device, and keep the engine there in ``$XDG_CACHE_HOME/lathe/tensorrt``
under a digest of the file's bytes, the build options, the GPU, and the versions of TensorRT and the driver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from devices.connections import Completed
from devices.errors import MeasurementError, TargetError
from devices.measurement.measurement import MeasuringProtocol
from devices.runtimes.agent import FOLDER, AgentRuntime
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
from devices.runtimes.native.trtexec import DELEGATE, INSTALL, Failed, Lost, Session, survey
from devices.target import Target

_CANARY = FOLDER.parent / "canary" / "canary.onnx"

WARMUP_NS = 200_000_000
"""The least warm-up, trtexec's own: a GPU takes that long to raise its clocks."""
UNCAPPED_COUNT, UNCAPPED_NS = 2**31 - 1, 2**63 - 1
"""trtexec has no upper limits."""

_COMMON: dict[str, Any] = {
    "name": "tensorrt",
    "suffixes": (".onnx", ".engine", ".plan"),
    "precisions": ("fp16", "fp32", "bf16", "int8"),
}
_TF32 = "let fp32 convolutions and products be computed in TF32"


@dataclass(frozen=True)
class TensorRt(AgentRuntime):
    """TensorRT by its Python API."""

    def adapt(self, protocol: MeasuringProtocol) -> MeasuringProtocol:
        """The protocol with a warm-up that is long enough for a GPU."""
        return replace(protocol, warmup_ns=max(protocol.warmup_ns, WARMUP_NS))

    def missing(self, device: str, detail: str) -> TargetError:
        """The error for a device without TensorRT for Python, or without a driver."""
        error = super().missing(device, detail)
        return TargetError(
            error.what,
            why=f"{detail} (the Python package tensorrt and an NVIDIA driver are needed)",
            fix=f"{error.fix}; {INSTALL}; or write +native to use trtexec instead",
        )


TENSORRT = TensorRt(
    **_COMMON,
    options={"cores": "run on these cores only, as in cores=0-3,6", "tf32": _TF32},
    engine=FOLDER / "engine_tensorrt.py",
    extra="tensorrt",
    package="tensorrt",
    delegates=lambda _: DELEGATE,
    canary=_CANARY,
    modules=(FOLDER / "nvidia.py", FOLDER / "cuda.py"),
)


@dataclass(frozen=True)
class Trtexec(Runtime):
    """TensorRT by ``trtexec``, one process for each file of a launch; versions 8.6 and newer.

    A sample is trtexec's *GPU compute time* of one inference with ``--exposeDMA``: nothing is enqueued ahead,
    so that it is the time from just before the inference is enqueued, with its input on the GPU, until its
    last kernel has ended. Copies are trtexec's *H2D* and *D2H latency*. Inputs are trtexec's own random
    values. The time of the first inference, peak memory and usage of the processor are not reported.

    Attributes:
        canary: the canary as a file of the runtime.
    """

    canary: Path

    needs_python: ClassVar[bool] = False

    def delegate(self, target: Target) -> str:
        """All layers run in the engine."""
        return DELEGATE

    def adapt(self, protocol: MeasuringProtocol) -> MeasuringProtocol:
        """trtexec warms up by time alone, and goes on until minimum count and time are both reached."""
        return replace(
            protocol,
            warmup_count=0,
            warmup_ns=max(protocol.warmup_ns, WARMUP_NS),
            max_count=UNCAPPED_COUNT,
            max_ns=UNCAPPED_NS,
        )

    def exchange(self, call: Call, request: Request) -> Reply:
        """Start trtexec as often as the request needs, and turn what it says into events."""
        if isinstance(request, Predict):
            raise MeasurementError(
                "trtexec cannot run a set of inputs",
                why="it would need a process for each, and prints six digits of each output",
                fix="leave +native out, so that TensorRT's Python API is used",
            )
        if isinstance(request, Sustain):
            call = replace(call, silence_s=None)  # it tells of all windows at the end
        try:
            session = Session(call, survey(call))
        except Lost as lost:
            return Reply((), lost.ended)
        try:
            match request:
                case Identify():
                    session.identify()
                case Measure(artifacts, protocol):
                    session.measure(artifacts, protocol, self.canary)
                case ProfileOperations(artifact, protocol):
                    session.operations(artifact, protocol)
                case Sustain(artifact, protocol, duration_ns, window_ns):
                    session.sustain(artifact, protocol, duration_ns, window_ns)
        except Failed as failed:
            session.emit("failed", code=failed.code, detail=failed.detail)
        except Lost as lost:
            return Reply(tuple(session.events), lost.ended)
        return Reply(tuple(session.events), Completed(0, ""))


TRTEXEC = Trtexec(
    **_COMMON,
    options={"native": "use trtexec rather than the Python API", "tf32": _TF32},
    canary=_CANARY,
)
