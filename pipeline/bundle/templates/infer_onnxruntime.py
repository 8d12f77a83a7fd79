"""Classify images with this bundle's ONNX model.

Needs numpy and ONNX Runtime only: python -m pip install numpy onnxruntime

    python infer_onnxruntime.py IMAGES.npy [--threads N]
"""

from __future__ import annotations

from pipeline.bundle.templates.infer_common import Predict, main


def load_model(path: str, threads: int) -> Predict:
    """Open the model; the answer maps one preprocessed image, float32 of the model's shape, to logits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


if __name__ == "__main__":
    main("onnxruntime", load_model)
