"""ONNX models in int8 by ONNX Runtime's quantisers.

Source: page "Quantize ONNX Models" of ONNX Runtime's documentation, and the docstrings of ``quantize_static``
and ``quantize_dynamic``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CHUNK_BYTES = 64_000_000
"""Of activations that the calibrator holds at a time; those of an input are taken as 100 times its size."""
SMALLEST_RANGE = 0.01
"""A tensor that is always 0 has no range, and a scale of 0 is refused."""


def prepare(model: str, path: str) -> None:
    """Save the graph as quantisers want it: shapes known, BatchNorm folded, operators with names."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from pipeline.export.onnx_graph import with_names_by_position

    quant_pre_process(model, path, skip_symbolic_shape=True)
    prepared = onnx.load(path)
    marks = list(prepared.metadata_props)
    with_names_by_position(prepared)
    prepared.metadata_props.extend(marks)
    onnx.save(onnx.shape_inference.infer_shapes(prepared), path)


def find_ranges(model: str, inputs: str, method: str, path: str) -> None:
    """Save the ranges of all activations over calibration inputs.

    Args:
        model: that was prepared.
        inputs: ``.npz`` of arrays by name of an input, a row for each inference.
        method: ``MinMax``, ``Entropy`` or ``Percentile`` of ``CalibrationMethod``.
        path: where to, as ``calibration_cache_path`` of ``quantize_static``.
    """
    from onnxruntime.quantization import CalibrationMethod, create_calibrator
    from onnxruntime.quantization.calibrate import save_tensors_data
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    calibrator = create_calibrator(
        model,
        sorted({*QLinearOpsRegistry, *QDQRegistry}),
        augmented_model_path=f"{path}.augmented.onnx",
        calibrate_method=CalibrationMethod[method],
        extra_options={"symmetric": False},
    )
    for reader in _readers(inputs):
        calibrator.collect_data(reader)
    save_tensors_data(calibrator.compute_data(), path)


def quantise_static(
    model: str,
    path: str,
    ranges: str,
    *,
    method: str,
    activations: str,
    weights: str,
    symmetric: bool,
    reduce_range: bool,
    in_float: Sequence[str],
    only: Sequence[str] = (),
    biases_in_float: bool = False,
) -> None:
    """Save a model with QuantizeLinear and DequantizeLinear around its operators, weights per channel.

    Args:
        model: that was prepared.
        path: where to.
        ranges: from ``find_ranges``.
        method: with which these were found.
        activations: ``QInt8`` or ``QUInt8`` of ``QuantType``.
        weights: likewise.
        symmetric: zero points of activations are 0, or the middle of what is unsigned.
        reduce_range: weights of 7 bits, for processors whose 8-bit products saturate.
        in_float: operators that stay as they are, by name.
        only: operators that are quantised, by name; all if empty.
        biases_in_float: biases stay as they are, as against 32-bit integers.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    from pipeline.export.onnx_graph import with_names_by_position

    quantize_static(
        model,
        path,
        calibrate_method=CalibrationMethod[method],
        calibration_cache_path=ranges,
        activation_type=QuantType[activations],
        weight_type=QuantType[weights],
        per_channel=True,
        reduce_range=reduce_range,
        nodes_to_exclude=list(in_float),
        nodes_to_quantize=list(only),
        extra_options={
            "ActivationSymmetric": symmetric,
            "WeightSymmetric": weights == "QInt8",
            "MinimumRealRange": SMALLEST_RANGE,
            "QuantizeBias": not biases_in_float,
        },
    )
    quantised = with_names_by_position(onnx.load(path))
    Path(path).write_bytes(quantised.SerializeToString(deterministic=True))


def quantise_dynamic(model: str, path: str, weights: str) -> None:
    """Save a model whose weights are int8, and whose activations are quantised as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from pipeline.export.onnx_graph import with_names_by_position

    quantize_dynamic(model, path, weight_type=QuantType[weights], per_channel=False)
    quantised = with_names_by_position(onnx.load(path))
    Path(path).write_bytes(quantised.SerializeToString(deterministic=True))


def store_weights_in_int8(model: str, path: str) -> None:
    """Save a model whose large weights are int8 per channel, each with a DequantizeLinear behind it."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    loaded = onnx.load(model)
    graph = loaded.graph
    axes = {}
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm") and len(node.input) > 1:
            transposed = any(each.name == "transB" and each.i for each in node.attribute)
            axes[node.input[1]] = {"Conv": 0, "ConvTranspose": 1}.get(node.op_type, 0 if transposed else -1)
    added = []
    for weight in list(graph.initializer):
        values = numpy_helper.to_array(weight)
        if weight.name not in axes or values.dtype != np.float32 or values.ndim < 2:
            continue
        axis = axes[weight.name] % values.ndim
        others = tuple(each for each in range(values.ndim) if each != axis)
        scale = np.maximum(np.abs(values).max(axis=others) / 127, np.finfo(np.float32).tiny)
        scale = scale.astype(np.float32)
        shape = [-1 if each == axis else 1 for each in range(values.ndim)]
        integers = np.clip(np.rint(values / scale.reshape(shape)), -127, 127).astype(np.int8)
        graph.initializer.remove(weight)
        graph.initializer.append(numpy_helper.from_array(integers, f"{weight.name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{weight.name}_scale"))
        names = [f"{weight.name}_int8", f"{weight.name}_scale"]
        added.append(helper.make_node("DequantizeLinear", names, [weight.name], axis=axis))
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(loaded)
    Path(path).write_bytes(loaded.SerializeToString(deterministic=True))


def _readers(inputs: str) -> Iterator[Any]:
    """Readers of calibration inputs, each over as many as fit into memory with all their activations."""
    import numpy as np
    from onnxruntime.quantization import CalibrationDataReader

    arrays = dict(np.load(inputs, allow_pickle=False))
    count = min(len(each) for each in arrays.values())
    row_bytes = sum(each[0].nbytes for each in arrays.values())
    chunk = max(1, CHUNK_BYTES // (100 * row_bytes))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, start: int) -> None:
            self._rows = iter(range(start, min(start + chunk, count)))

        def get_next(self) -> dict[str, Any] | None:
            row = next(self._rows, None)
            return None if row is None else {name: each[row : row + 1] for name, each in arrays.items()}

    yield from (Reader(start) for start in range(0, count, chunk))


def sensitivity(model: str, ranges: str, inputs: str) -> list[tuple[str, str, float]]:
    """Of every operator with weights: name, kind, and signal over noise of the outputs, it alone in int8.

    Args:
        model: that was prepared.
        ranges: from ``find_ranges`` by the smallest and largest value.
        inputs: ``.npz`` as there.

    Returns:
        In decibel.
    """
    import numpy as np
    import onnx

    from pipeline.export.noise import signal_to_noise_db

    kinds = {node.name: node.op_type for node in onnx.load(model).graph.node}
    layers = [name for name, kind in kinds.items() if kind in ("Conv", "ConvTranspose", "MatMul", "Gemm")]
    arrays = dict(np.load(inputs, allow_pickle=False))
    expected = _run(model, arrays)
    quantised, found = f"{inputs}.onnx", []
    for name in layers:
        quantise_static(
            model,
            quantised,
            ranges,
            method="MinMax",
            activations="QUInt8",
            weights="QInt8",
            symmetric=False,
            reduce_range=False,
            in_float=(),
            only=[name],
        )
        found.append((name, kinds[name], signal_to_noise_db(expected, _run(quantised, arrays))))
    return found


def _run(model: str, arrays: dict[str, Any]) -> list[Any]:
    """Each output ``(N, values)``."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    count = min(len(each) for each in arrays.values())
    rows = [{name: each[row : row + 1] for name, each in arrays.items()} for row in range(count)]
    outputs = zip(*(session.run(None, row) for row in rows), strict=True)
    return [np.stack([each.reshape(-1) for each in output]) for output in outputs]
