"""LiteRT models quantised by ai-edge-quantizer.

Source: README and ``recipe.py`` of ai-edge-quantizer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SMALLEST_RANGE = 0.01
"""XNNPACK refuses the scale of a tensor that is always 0."""


_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")


def quantise(model: str, path: str, recipe: str, inputs: str | None, in_float: Sequence[str] = ()) -> None:
    """Save a model in int8 or with smaller weights; its inputs and outputs stay float32.

    Args:
        model: with one signature.
        path: where to.
        recipe: ``static``, ``dynamic``, ``weights`` or ``half``.
        inputs: for ``static``: ``.npz`` of arrays by name of an input of the signature, a row for each
            inference.
        in_float: for ``static``: operators that stay as they are, by the name of their output.
    """
    from ai_edge_quantizer import quantizer

    quantiser = quantizer.Quantizer(Path(model).read_bytes(), _recipe(recipe, in_float))
    ranges = None if inputs is None else _ranges(quantiser, _samples(inputs))
    made = quantiser.quantize(ranges, enable_progress_report=False).quantized_model
    Path(path).write_bytes(made)


def sensitivity(model: str, inputs: str, few: int) -> list[tuple[str, str, float]]:
    """Of every operator with weights: name, kind, and signal over noise of the outputs, it alone in int8.

    Args:
        model: with one signature.
        inputs: ``.npz`` as for ``quantise``.
        few: of them that are run.

    Returns:
        Names are those of the operators' outputs; in decibel.
    """
    from ai_edge_quantizer import quantizer

    from pipeline.export import flatbuffer
    from pipeline.export.noise import signal_to_noise_db

    content, samples = Path(model).read_bytes(), _samples(inputs)
    ranges = _ranges(quantizer.Quantizer(content, _recipe("static")), samples)
    expected = _run(content, samples[:few])
    read, found = flatbuffer.read(content), []
    graph = read.subgraphs[0]
    for operator, kind in zip(graph.operators, flatbuffer.operator_names(read), strict=True):
        if kind not in _WEIGHTED:
            continue
        name = graph.tensors[operator.outputs[0]].name.decode()
        quantiser = quantizer.Quantizer(content, _recipe("static", only=name))
        made = quantiser.quantize(ranges, enable_progress_report=False).quantized_model
        found.append((name, kind, signal_to_noise_db(expected, _run(made, samples[:few]))))
    return found


def _samples(inputs: str) -> list[dict[str, Any]]:
    import numpy as np

    arrays = dict(np.load(inputs, allow_pickle=False))
    rows = range(min(len(each) for each in arrays.values()))
    return [{name: each[row : row + 1] for name, each in arrays.items()} for row in rows]


def _ranges(quantiser: Any, samples: list[dict[str, Any]]) -> Any:
    ranges = quantiser.calibrate({"serving_default": samples}, num_threads=1)
    for each in ranges.values():
        each["max"] = each["max"].clip(min=each["min"] + SMALLEST_RANGE)
    return ranges


def _run(content: bytes, samples: list[dict[str, Any]]) -> list[Any]:
    """Each output ``(N, values)``."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=bytes(content), num_threads=1).get_signature_runner()
    answers = [run(**sample) for sample in samples]
    return [np.stack([answer[name].reshape(-1) for answer in answers]) for name in answers[0]]


def _recipe(name: str, in_float: Sequence[str] = (), only: str = "") -> Any:
    """A recipe of the library.

    Args:
        name: as for ``quantise``.
        in_float: of ``static``: operators that stay as they are, by the name of their output.
        only: of ``static``: the operator that alone is quantised.
    """
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
    (static,) = recipe.static_wi8_ai8()
    manager.load_quantization_recipe([{**static, "regex": _output(only) if only else static["regex"]}])
    for each in in_float:
        manager.add_quantization_config(
            regex=_output(each),
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE,
        )
    for edge in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        manager.add_quantization_config(
            regex=".*",
            operation_name=edge,
            algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE,
        )
    return manager.get_quantization_recipe()


def _output(name: str) -> str:
    """The expression for operators with an output of this name, in the library's lists of their outputs."""
    return f"(^|;){re.escape(name)}(;|$)"
