"""ONNX Runtime: on the CPU, or on another execution provider by option."""

from __future__ import annotations

from pathlib import Path

from devices.runtimes.agent import AgentRuntime
from devices.target import Target

_FOLDER = Path(__file__).parent.parent

PROVIDERS = {
    "acl": "ACLExecutionProvider",
    "cann": "CANNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""Execution providers by option, as ONNX Runtime 1.31 names them."""


def _delegate(target: Target) -> str:
    chosen = [PROVIDERS[name] for name in target.settings if name in PROVIDERS]
    return chosen[0] if chosen else "CPUExecutionProvider"


ONNXRUNTIME = AgentRuntime(
    name="onnxruntime",
    suffixes=(".onnx", ".ort"),
    precisions=("fp32", "fp16", "int8"),
    options={
        "cores": "run on these cores only, as in cores=0-3,6",
        **{name: f"run on {provider}" for name, provider in PROVIDERS.items()},
    },
    engine=_FOLDER / "agent" / "engine_onnxruntime.py",
    extra="onnxruntime",
    package="onnxruntime",
    delegates=_delegate,
    canary=_FOLDER / "canary" / "canary.onnx",
)
