"""What both ways to TensorRT know of engines: which files can be kept, which precisions layers have.

The engine by TensorRT's Python API imports this on the device, the host for ``trtexec``.
"""

from __future__ import annotations

import re
from typing import Any, Sequence

PRECISION_FLAGS = {"fp32": (), "fp16": ("FP16",), "bf16": ("BF16",), "int8": ("INT8", "FP16")}
"""Builder flags of each precision; a model quantised to int8 keeps fp16 for what is not quantised."""
PRECISION_FORMATS = {"fp16": ("half", "fp16"), "bf16": ("bf16", "bfloat16"), "int8": ("int8",)}
"""Words of the engine inspector for tensors of each precision."""
STRONGLY_TYPED = 11
"""The major version from which types come from the model, and builder flags for precisions are gone."""
EXTERNAL_WEIGHTS = re.compile(rb"\x6a.{1,2}\x0a\x08location", re.DOTALL)
"""An entry of ``TensorProto.external_data`` (field 13) with the key ``location``."""


def has_external_weights(model: bytes) -> bool:
    """Whether an ONNX file keeps weights in a file of their own, so that its bytes do not identify it."""
    return EXTERNAL_WEIGHTS.search(model) is not None


def lacks_precision(layers: Sequence[Any], precision: str) -> bool:
    """Whether layers of the engine inspector say their formats, and none of them has the precision."""
    formats = [
        str(tensor.get("Format/Datatype", "")).lower()
        for layer in layers
        if isinstance(layer, dict)
        for tensor in [*layer.get("Inputs", []), *layer.get("Outputs", [])]
        if isinstance(tensor, dict)
    ]
    words = PRECISION_FORMATS.get(precision, ())
    return bool(words and formats) and not any(word in text for text in formats for word in words)
