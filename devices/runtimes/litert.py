"""LiteRT on the CPU, through its default XNNPACK delegate."""

from __future__ import annotations

from pathlib import Path

from devices.runtimes.base import Runtime

LITERT = Runtime(
    name="litert",
    engine=Path(__file__).parent.parent / "agent" / "engine_litert.py",
    suffixes=(".tflite",),
    precisions=("fp32",),
    options=(),
    extra="litert",
)
