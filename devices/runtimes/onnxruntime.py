"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

from devices.runtimes.base import Runtime

ONNXRUNTIME = Runtime(
    name="onnxruntime",
    engine=Path(__file__).parent.parent / "agent" / "engine_onnxruntime.py",
    suffixes=(".onnx", ".ort"),
    precisions=("fp32",),
    options=(),
    extra="onnxruntime",
)
