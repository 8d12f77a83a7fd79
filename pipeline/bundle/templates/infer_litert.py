"""Classify images with this bundle's LiteRT model.

Needs numpy and LiteRT, and Pillow for image files:

    python -m pip install numpy ai-edge-litert pillow

    python infer_litert.py IMAGE... [--top N] [--threads N]
"""

from __future__ import annotations

from pipeline.bundle.templates.infer_common import Predict, Settings, main


def load_model(path: str, settings: Settings) -> Predict:
    """Open the model; the answer maps one preprocessed image, float32 of the model's shape, to logits.

    It runs where it was measured, on the CPU or the GPU, or not at all.
    """
    if settings["delegate"] == "gpu":
        return _load_on_gpu(path, settings)
    if settings["delegate"] != "xnnpack":
        raise ValueError(
            f"the model was measured on {settings['delegate']}, which LiteRT for Python does not have; use "
            "LiteRT's library for the device, or choose another --target"
        )
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=settings["threads"])
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]

    def predict(image: object) -> object:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return predict


def _load_on_gpu(path: str, settings: Settings) -> Predict:
    import numpy
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import GpuOptions, Options

    options = Options(
        hardware_accelerators=HardwareAccelerator.GPU,
        gpu_options=GpuOptions(enforce_f32=settings["precision"] == "fp32"),
    )
    model = CompiledModel.from_file(path, options=options)
    if not model.is_fully_accelerated():
        raise ValueError("the GPU, on which the model was measured, does not take all of it here")
    source, result = model.create_input_buffers(0), model.create_output_buffers(0)
    key, names = next(iter(model.get_signature_list().items()))
    shape = model.get_output_tensor_details(key)[names["outputs"][0]]["shape"]

    def predict(image: object) -> object:
        source[0].write(image)
        model.run_by_index(0, source, result)
        return result[0].read(int(numpy.prod(shape)), numpy.dtype("float32"))

    return predict


if __name__ == "__main__":
    main("litert", load_model)
