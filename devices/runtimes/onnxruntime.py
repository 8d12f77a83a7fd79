"""ONNX Runtime: on the CPU, or on another execution provider by option."""

from __future__ import annotations

from dataclasses import dataclass

from devices.errors import TargetError
from devices.runtimes.agent import FOLDER, AgentRuntime
from devices.target import Target

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


def _chosen(target: Target) -> list[str]:
    return [name for name in target.settings if name in PROVIDERS]


def _delegate(target: Target) -> str:
    return next((PROVIDERS[name] for name in _chosen(target)), "CPUExecutionProvider")


@dataclass(frozen=True)
class OnnxRuntime(AgentRuntime):
    """ONNX Runtime, with one execution provider beside the CPU's at most."""

    def check(self, target: Target) -> None:
        """Refuse also more than one execution provider.

        Raises:
            TargetError: naming them.
        """
        super().check(target)
        chosen = _chosen(target)
        if len(chosen) > 1:
            raise TargetError(
                f"target '{target}' asks for {' and '.join(PROVIDERS[name] for name in chosen)}",
                why="a model is measured on one execution provider, and on the CPU what that does not take",
                fix=f"leave '+{chosen[1]}' out",
            )


ONNXRUNTIME = OnnxRuntime(
    name="onnxruntime",
    suffixes=(".onnx", ".ort"),
    precisions=("fp32", "fp16", "int8"),
    options={
        "cores": "run on these cores only, as in cores=0-3,6",
        **{name: f"run on {provider}" for name, provider in PROVIDERS.items()},
    },
    engine=FOLDER / "engine_onnxruntime.py",
    extra="onnxruntime",
    package="onnxruntime",
    delegates=_delegate,
    canary=FOLDER.parent / "canary" / "canary.onnx",
    modules=(FOLDER / "nvidia.py",),
)
