"""ONNX models in int8 by NNCF, as OpenVINO runs them.

NNCF gives an ONNX model QuantizeLinear and DequantizeLinear: weights per channel, activations with ranges
from calibration inputs, and biases corrected for the mean error of their operator.

Source: NNCF 3.4, docstrings of ``nncf.quantize`` and ``AdvancedQuantizationParameters``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def quantise(
    model: str, path: str, inputs: str, *, preset: str, in_float: Sequence[str], fast_correction: bool
) -> None:
    """Save the model with quantisers.

    Args:
        model: whose operators have the names that ``in_float`` uses.
        path: where to.
        inputs: ``.npz`` of arrays by name of an input, a row for each inference.
        preset: ``performance`` for symmetric activations, ``mixed`` for asymmetric ones.
        in_float: operators that stay as they are, by name.
        fast_correction: biases are corrected all at once, as against one after the other, which takes longer.
    """
    import nncf
    import numpy as np
    import onnx

    from pipeline.export.onnx_graph import with_names_by_position

    arrays = dict(np.load(inputs, allow_pickle=False))
    count = min(len(each) for each in arrays.values())
    rows = [{name: each[row : row + 1] for name, each in arrays.items()} for row in range(count)]
    quantised = nncf.quantize(
        onnx.load(model),
        nncf.Dataset(rows),
        preset=nncf.QuantizationPreset(preset),
        target_device=nncf.TargetDevice.CPU,
        subset_size=count,
        fast_bias_correction=fast_correction,
        ignored_scope=nncf.IgnoredScope(names=list(in_float)) if in_float else None,
    )
    Path(path).write_bytes(with_names_by_position(quantised).SerializeToString(deterministic=True))
