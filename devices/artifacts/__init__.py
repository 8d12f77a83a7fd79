"""Model files as they lie on a disk: what belongs to one, and its digest."""

from devices.artifacts.companions import artifact_digest, companions, onnx_facts, refuse_incomplete
from devices.artifacts.hints import Hint, added, hints_of, input_names, open_inputs
from devices.artifacts.onnx_file import OnnxFile, OnnxNode, read_onnx
from devices.artifacts.pushing import push_artifact

__all__ = [
    "Hint",
    "OnnxFile",
    "OnnxNode",
    "added",
    "artifact_digest",
    "companions",
    "hints_of",
    "input_names",
    "onnx_facts",
    "open_inputs",
    "push_artifact",
    "read_onnx",
    "refuse_incomplete",
]
