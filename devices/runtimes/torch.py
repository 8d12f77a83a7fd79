"""PyTorch: exported programs run eagerly, and AOTInductor packages, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path

from devices.runtimes.agent import AgentRuntime
from devices.target import Target

_FOLDER = Path(__file__).parent.parent


def _delegate(target: Target) -> str:
    return "cuda" if "cuda" in target.settings else "cpu"


TORCH = AgentRuntime(
    name="torch",
    suffixes=(".pt2",),
    precisions=("fp32", "fp16", "bf16", "int8"),
    options={
        "cores": "run on these cores only, as in cores=0-3,6",
        "cuda": "run on the first NVIDIA GPU",
    },
    engine=_FOLDER / "agent" / "engine_torch.py",
    extra="torch",
    package="torch",
    delegates=_delegate,
)
