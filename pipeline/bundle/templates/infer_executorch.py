"""Run this bundle's ExecuTorch program.

Needs numpy and ExecuTorch, and Pillow for image files:

    python -m pip install numpy executorch pillow

    python infer_executorch.py FILE... [--top N] [--threads N]
"""

from __future__ import annotations

from pipeline.bundle.templates.infer_common import Predict, Settings, Tensors, main


def load_model(path: str, settings: Settings) -> Predict:
    """Open the program; the answer maps its inputs, in its own order, to its outputs.

    The delegates that it was measured with are in the program itself.
    """
    import torch
    from executorch.extension.pybindings import _C as runtime

    # All programs of a process share the threads, so they are set before one is loaded.
    if runtime._threadpool_get_thread_count() != settings["threads"]:
        runtime._unsafe_reset_threadpool(settings["threads"])
    program = runtime._load_program(path)
    method = program.load_method("forward")

    def predict(inputs: Tensors) -> Tensors:
        method.set_inputs([torch.from_numpy(value) for value in inputs])
        method.execute()
        return [value.numpy() for value in method.get_outputs(clone_outputs=True)]

    return predict


if __name__ == "__main__":
    main("executorch", load_model)
