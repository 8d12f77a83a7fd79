"""Classify images with this bundle's LiteRT model.

Needs numpy and LiteRT only: python -m pip install numpy ai-edge-litert

    python infer_litert.py IMAGES.npy [--threads N]
"""

from __future__ import annotations

from pipeline.bundle.templates.infer_common import Predict, main


def load_model(path: str, threads: int) -> Predict:
    """Open the model; the answer maps one preprocessed image, float32 of the model's shape, to logits."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]

    def predict(image: object) -> object:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return predict


if __name__ == "__main__":
    main("litert", load_model)
