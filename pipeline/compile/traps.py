"""Known traps: what was seen of a compiled file that often makes it slow, or wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from devices.measurement import Measurement
from devices.measuring import PRACTICAL
from pipeline.compile.model import GivenModel
from pipeline.compile.result import Fate, Raced

_TRANSPOSES = ("Transpose", "TRANSPOSE")


def traps_of(path: Path, model: GivenModel, measurement: object) -> tuple[str, ...]:
    """What to mind of one variant.

    Args:
        path: the compiled file.
        model: what it was made of.
        measurement: of the file, or ``None``.
    """
    found = []
    added = sum(operators_of(path).get(kind, 0) for kind in _TRANSPOSES)
    added -= sum(model.operators.get(kind, 0) for kind in _TRANSPOSES)
    if added > 0:
        found.append(f"{added} transposes more than in the model")
    if isinstance(measurement, Measurement):
        placement = measurement.placement
        if placement is not None and not placement.full:
            found.append(f"fell back: {placement}")
        found += [f"{each.code}: {each.detail}" for each in measurement.launches[0].warnings]
    return tuple(found)


def traps_of_all(raced: Raced, model: GivenModel) -> tuple[str, ...]:
    """What to mind of the whole."""
    found = []
    if any(row.measurement is not None and row.measurement.device.emulated for row in raced.rows):
        found.append("the processor is emulated: latencies and the choice by them say nothing of a real one")
    for row in raced.rows:
        slow = (
            row.ratio is not None
            and row.ratio.value > 1 + PRACTICAL
            and row.fate in (Fate.MEASURED, Fate.STOPPED)
        )
        if slow and ":int8" in row.variant and row.variant.partition(":")[0] in raced.baseline:
            assert row.ratio is not None
            signs = ", as signed and unsigned types are not equally fast on a processor"
            static = any(sign in row.variant for sign in ("s8s8", "u8u8", "u8s8"))
            found.append(
                f"{row.variant} is slower than fp32, {row.ratio.value:.2f}x{signs if static else ''}"
            )
    failed = {
        row.variant.partition(":")[0]: row.why
        for row in raced.rows
        if row.fate is Fate.FAILED and row.lossless
    }
    ran = sorted({row.variant.partition(":")[0] for row in raced.rows if row.measurement is not None})
    for runtime, why in failed.items():
        if runtime not in ran:
            found.append(f"{runtime} does not run {model.name} ({why}); {', '.join(ran)} does")
    return tuple(found)


def operators_of(path: Path) -> Mapping[str, int]:
    """How many operators of each kind a file has; nothing where its format does not tell."""
    if path.suffix == ".onnx":
        import onnx

        return Counter(node.op_type for node in onnx.load(path).graph.node)
    if path.suffix == ".tflite":
        from pipeline.export import flatbuffer

        return Counter(flatbuffer.operator_names(flatbuffer.read(path.read_bytes())))
    return {}
