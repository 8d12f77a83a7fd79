"""Run this bundle's ONNX model by OpenVINO.

Needs numpy and OpenVINO, and Pillow for image files:

    python -m pip install numpy openvino pillow

    python infer_openvino.py FILE... [--top N] [--threads N]
"""

from __future__ import annotations

from pipeline.bundle.templates.infer_common import Predict, Settings, Tensors, main

PRECISIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
"""In what OpenVINO computes what is not quantised."""


def load_model(path: str, settings: Settings) -> Predict:
    """Open the model; the answer maps its inputs, in its own order, to its outputs.

    It computes in the precision in which it was measured, on the CPU.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    if model.is_dynamic():
        model.reshape(
            {
                port: [size.get_length() if size.is_static else 1 for size in port.partial_shape]
                for port in model.inputs
            }
        )
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": settings["threads"],
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": PRECISIONS[settings["precision"]],
    }
    compiled = core.compile_model(model, settings["delegate"], options)

    def predict(inputs: Tensors) -> Tensors:
        results = compiled(inputs)
        return [results[port] for port in compiled.outputs]

    return predict


if __name__ == "__main__":
    main("openvino", load_model)
