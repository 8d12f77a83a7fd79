"""Execution providers of ONNX Runtime 1.31: their names, where they come from, and what sets some apart.

The engine of ONNX Runtime imports this on the device, and the host to know what targets may ask for. Sources:
pages "Execution Providers" and "Profiling tools" of ONNX Runtime's documentation.
"""

from __future__ import annotations

CPU = "CPUExecutionProvider"

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
"""Those beside the CPU's, by the option of a target."""

PACKAGES = {
    "CANNExecutionProvider": "onnxruntime-cann",
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "DmlExecutionProvider": "onnxruntime-directml",
    "MIGraphXExecutionProvider": "onnxruntime-migraphx",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "QNNExecutionProvider": "onnxruntime-qnn",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "WebGpuExecutionProvider": "onnxruntime-webgpu",
}
"""The pip package with each provider; the others are in builds of one's own, CoreML in the one for macOS."""

NVIDIA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
"""Providers with memory of their own: inputs and outputs are kept there."""

ASYNCHRONOUS = (
    *NVIDIA,
    "DmlExecutionProvider",
    "MIGraphXExecutionProvider",
    "WebGpuExecutionProvider",
)
"""Providers whose kernels are only started in the time that the profile of ONNX Runtime gives."""

COMPILING = ("NnapiExecutionProvider", "TensorrtExecutionProvider")
"""Providers that make one node of each partition, after which its operations cannot be counted."""
