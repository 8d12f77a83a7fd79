"""Run this bundle's LiteRT model.

Needs numpy and LiteRT, and Pillow for image files:

    python -m pip install numpy ai-edge-litert pillow

    python infer_litert.py FILE... [--top N] [--threads N]
"""

from __future__ import annotations

from devices.runtimes import dispatch_library, environment_of, made_for
from pipeline.bundle.templates.infer_common import Predict, Settings, Tensors, main


def load_model(path: str, settings: Settings) -> Predict:
    """Open the model; the answer maps its inputs, in its own order, to its outputs.

    It runs where it was measured, on the CPU, the GPU or an NPU, or not at all.
    """
    if settings["delegate"] in ("gpu", "npu"):
        return _load_compiled(path, settings)
    if settings["delegate"] != "xnnpack":
        raise ValueError(
            f"the model was measured on {settings['delegate']}, which LiteRT for Python does not have; use "
            "LiteRT's library for the device, or choose another --target"
        )
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=settings["threads"])
    interpreter.allocate_tensors()
    sources = [each["index"] for each in interpreter.get_input_details()]
    results = [each["index"] for each in interpreter.get_output_details()]

    def predict(inputs: Tensors) -> Tensors:
        for index, value in zip(sources, inputs):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in results]

    return predict


def _load_compiled(path: str, settings: Settings) -> Predict:
    import numpy
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import CpuOptions, GpuOptions, Options

    on_gpu, environment = settings["delegate"] == "gpu", None
    if on_gpu:
        options = Options(
            hardware_accelerators=HardwareAccelerator.GPU,
            gpu_options=GpuOptions(enforce_f32=settings["precision"] == "fp32"),
        )
    else:  # what was not compiled for the NPU is the CPU's
        options = Options(
            hardware_accelerators=HardwareAccelerator.NPU | HardwareAccelerator.CPU,
            cpu_options=CpuOptions(num_threads=settings["threads"]),
        )
        maker = made_for(path)
        environment = environment_of(dispatch_library(maker)) if maker else None
    model = CompiledModel.from_file(path, environment=environment, options=options)
    if on_gpu and not model.is_fully_accelerated():
        raise ValueError("the GPU, on which the model was measured, does not take all of it here")
    sources, results = model.create_input_buffers(0), model.create_output_buffers(0)

    def predict(inputs: Tensors) -> Tensors:
        for buffer, value in zip(sources, inputs):
            buffer.write(value)
        model.run_by_index(0, sources, results)
        return [
            buffer.read(int(numpy.prod(each["shape"])), numpy.dtype(each["dtype"])).reshape(each["shape"])
            for buffer, each in zip(results, settings["outputs"])
        ]

    return predict


if __name__ == "__main__":
    main("litert", load_model)
