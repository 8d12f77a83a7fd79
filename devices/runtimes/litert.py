"""LiteRT: on the CPU through its default XNNPACK delegate, or on the GPU by option."""

from __future__ import annotations

from devices.runtimes.agent import FOLDER, AgentRuntime
from devices.target import Target


def _delegate(target: Target) -> str:
    return "gpu" if "gpu" in target.settings else "xnnpack"


LITERT = AgentRuntime(
    name="litert",
    suffixes=(".tflite",),
    precisions=("fp32", "fp16", "int8"),
    options={
        "cores": "run on these cores only, as in cores=0-3,6",
        "gpu": "run on the GPU through LiteRT's GPU accelerator",
    },
    engine=FOLDER / "engine_litert.py",
    extra="litert",
    package="ai-edge-litert",
    delegates=_delegate,
    canary=FOLDER.parent / "canary" / "canary.tflite",
    modules=(FOLDER / "interpreter.py",),
)
