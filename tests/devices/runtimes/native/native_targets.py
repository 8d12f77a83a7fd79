"""Targets of the makers' tools, and what their stand-ins keep."""

from __future__ import annotations

from pathlib import Path

from devices.measurement.protocol import MeasuringProtocol
from devices.target import Target

STANDINS = Path(__file__).with_name("standins")
LITERT = Target("host", "litert", options=("native",))
ONNX = Target("host", "onnxruntime", options=("native",))
PROTOCOL = MeasuringProtocol(warmup_count=5, warmup_ns=10_000_000, min_count=50, min_ns=25_000_000)


def arguments_of(model: Path) -> list[str]:
    """What a stand-in was given with a model that says ``record``."""
    return Path(f"{model}.arguments").read_text().splitlines()
