"""Graphs made simpler: by ONNX Runtime's own optimiser, and by OnnxSlim.

Sources: page "Graph Optimizations" of ONNX Runtime's documentation; README of OnnxSlim.
"""

from __future__ import annotations

from pathlib import Path


def optimise(model: str, path: str, level: str, threads: int) -> None:
    """Save the graph as ONNX Runtime optimises it here when it loads it.

    Args:
        model: a file.
        path: where to.
        level: ``basic``, ``extended`` or ``all``.
        threads: of the session.
    """
    import onnx
    import onnxruntime

    from pipeline.export.onnx_graph import with_names_by_position

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}"
    )
    options.optimized_model_filepath = path
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # The runtime's own names differ from one run to the next.
    optimised = with_names_by_position(onnx.load(path))
    Path(path).write_bytes(optimised.SerializeToString(deterministic=True))


def slim(model: str, path: str) -> None:
    """Save the graph with constants folded and without operators that do nothing, by OnnxSlim."""
    import onnx
    import onnxslim

    from pipeline.export.onnx_graph import with_names_by_position

    slimmed = onnxslim.slim(onnx.load(model))
    if slimmed is None:
        raise RuntimeError("OnnxSlim gave no model")
    Path(path).write_bytes(with_names_by_position(slimmed).SerializeToString(deterministic=True))


def to_half(model: str, path: str) -> None:
    """Save the graph in fp16, with inputs and outputs in fp32, by ONNX Runtime's converter."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from pipeline.export.onnx_graph import with_names_by_position

    converted = convert_float_to_float16(onnx.load(model), keep_io_types=True)
    Path(path).write_bytes(with_names_by_position(converted).SerializeToString(deterministic=True))
