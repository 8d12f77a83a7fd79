"""Run this bundle's ONNX model.

Needs numpy and ONNX Runtime, and Pillow for image files:

    python -m pip install numpy onnxruntime pillow

    python infer_onnxruntime.py FILE... [--top N] [--threads N]
"""

from __future__ import annotations

from pipeline.bundle.templates.infer_common import Predict, Settings, main


def load_model(path: str, settings: Settings) -> Predict:
    """Open the model; the answer maps its inputs, in its own order, to its outputs.

    It runs on the execution provider on which it was measured, or not at all.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    provider, available = settings["delegate"], onnxruntime.get_available_providers()
    if provider not in available:
        raise ValueError(
            f"the model was measured on {provider}, and this ONNX Runtime has only {', '.join(available)}; "
            "install a build that has it, or choose another --target"
        )
    session = onnxruntime.InferenceSession(
        path, options, providers=list(dict.fromkeys((provider, "CPUExecutionProvider")))
    )
    if session.get_providers()[0] != provider:
        raise ValueError(f"{provider}, on which the model was measured, does not start on this machine")
    names = [each.name for each in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs)))


if __name__ == "__main__":
    main("onnxruntime", load_model)
