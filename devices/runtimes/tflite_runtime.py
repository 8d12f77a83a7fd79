"""tflite-runtime, for boards whose Python is too old for LiteRT: on the CPU through XNNPACK."""

from __future__ import annotations

from devices.runtimes.agent import FOLDER, AgentRuntime
from devices.target import Target


def _delegate(target: Target) -> str:
    return "xnnpack"


TFLITE_RUNTIME = AgentRuntime(
    name="tflite-runtime",
    suffixes=(".tflite",),
    precisions=("fp32", "fp16", "int8"),
    options={"cores": "run on these cores only, as in cores=0-3,6"},
    engine=FOLDER / "engine_tflite_runtime.py",
    extra="tflite-runtime",
    package="tflite-runtime",
    delegates=_delegate,
    canary=FOLDER.parent / "canary" / "canary.tflite",
    modules=(FOLDER / "interpreter.py",),
)
