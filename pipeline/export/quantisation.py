"""From fp32 files to int8 ones, by post-training quantisation with random inputs.

Ranges of random inputs through random weights are no better than those, and need not be: what is exported so
is timed, and latency hardly depends on the values. Inputs and outputs are integers too, as between two blocks
of a network, so that a block alone is not charged for conversions that a network does not make.
"""

from __future__ import annotations

from collections.abc import Sequence

from devices.host import temporary_folder
from pipeline.export import flatbuffer, onnx_graph
from pipeline.export.base import Format
from pipeline.export.process import Worker


def quantise(models: Sequence[bytes], fmt: Format, output_name: str, worker: Worker) -> list[bytes]:
    """Quantise models of one input called ``input`` and one output, all in one step of a worker.

    Args:
        models: contents of fp32 files.
        fmt: of int8.
        output_name: name of every file's output.
        worker: does it.

    Returns:
        The content of one file per model, in order; it depends on the model alone.

    Raises:
        ExportError: the quantiser refuses one of the models.
    """
    with temporary_folder("quantise") as folder:
        for index, model in enumerate(models):
            (folder / f"{index}.fp32").write_bytes(model)
        worker.do("quantise", folder)
        quantised = [(folder / f"{index}.int8").read_bytes() for index in range(len(models))]
    tidied = onnx_graph.integer_edges if fmt.runtime == "onnxruntime" else flatbuffer.tidied
    return [tidied(model, output_name) for model in quantised]
