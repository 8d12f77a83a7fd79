"""Run this bundle's ``.pt2`` file: an exported program, or a package that AOTInductor compiled.

Such a file is code: run it only if you trust whoever made the bundle. Needs numpy and PyTorch, and Pillow for
image files:

    python -m pip install numpy torch pillow

    python infer_torch.py FILE... [--top N] [--threads N]
"""

from __future__ import annotations

import os
import zipfile
from typing import Any

from pipeline.bundle.templates.infer_common import Predict, Settings, Tensors, main


def load_model(path: str, settings: Settings) -> Predict:
    """Open the model; the answer maps its inputs, in its own order, to its outputs.

    It runs where it was measured, on the CPU or an NVIDIA GPU, or not at all.
    """
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    import torch

    device = settings["delegate"]
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("the model was measured on an NVIDIA GPU, and this PyTorch sees none")
    torch.set_num_threads(settings["threads"])
    with zipfile.ZipFile(path) as archive:
        compiled = any("data/aotinductor/" in name for name in archive.namelist())
    model: Any = torch._inductor.aoti_load_package(path) if compiled else torch.export.load(path).module()

    def predict(inputs: Tensors) -> Tensors:
        # An exported program keeps to the device of its export, as it did when it was measured.
        with torch.inference_mode():
            result = model(*(torch.from_numpy(value).to(device) for value in inputs))
        values = result if isinstance(result, (list, tuple)) else [result]
        return [value.cpu().numpy() for value in values]

    return predict


if __name__ == "__main__":
    main("torch", load_model)
