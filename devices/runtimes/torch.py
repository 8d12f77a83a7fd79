"""PyTorch: exported programs run eagerly, and AOTInductor packages, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

from devices.runtimes.agent import FOLDER, AgentRuntime
from devices.target import Target


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
    engine=FOLDER / "engine_torch.py",
    extra="torch",
    package="torch",
    delegates=_delegate,
    modules=(FOLDER / "nvidia.py",),
)
