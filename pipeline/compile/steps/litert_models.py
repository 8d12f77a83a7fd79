"""LiteRT models quantised by ai-edge-quantizer.

Source: README and ``recipe.py`` of ai-edge-quantizer.
"""

from __future__ import annotations

from pathlib import Path

SMALLEST_RANGE = 0.01
"""XNNPACK refuses the scale of a tensor that is always 0."""


def quantise(model: str, path: str, recipe: str, inputs: str | None) -> None:
    """Save a model in int8 or with smaller weights; its inputs and outputs stay float32.

    Args:
        model: with one signature.
        path: where to.
        recipe: ``static``, ``dynamic``, ``weights`` or ``half``.
        inputs: for ``static``: ``.npz`` of arrays by name of an input of the signature, a row for each
            inference.
    """
    import numpy as np
    from ai_edge_quantizer import quantizer

    quantiser = quantizer.Quantizer(Path(model).read_bytes(), _recipe(recipe))
    ranges = None
    if inputs is not None:
        arrays = dict(np.load(inputs, allow_pickle=False))
        rows = range(min(len(each) for each in arrays.values()))
        samples = [{name: each[row : row + 1] for name, each in arrays.items()} for row in rows]
        ranges = quantiser.calibrate({"serving_default": samples}, num_threads=1)
        for each in ranges.values():
            each["max"] = each["max"].clip(min=each["min"] + SMALLEST_RANGE)
    made = quantiser.quantize(ranges, enable_progress_report=False).quantized_model
    Path(path).write_bytes(made)


def _recipe(name: str) -> object:
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe, recipe_manager

    match name:
        case "dynamic":
            return recipe.dynamic_wi8_afp32()
        case "weights":
            return recipe.weight_only_wi8_afp32()
    manager = recipe_manager.RecipeManager()
    if name == "half":
        weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        manager.add_quantization_config(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=weights,
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
        )
        return manager.get_quantization_recipe()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    for edge in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        manager.add_quantization_config(
            regex=".*",
            operation_name=edge,
            algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE,
        )
    return manager.get_quantization_recipe()
