"""Engine of OpenVINO on the CPU: ``.onnx`` files.

Inputs are written into the request's own tensors beforehand, so that ``run`` is one inference from input
ready to output ready, without copies to or from numpy. There is one stream with the threads of the target. No
thread is pinned to a core: the process keeps to those that a target names.

OpenVINO by itself computes in bfloat16 or float16 where the CPU is faster with it. Here the target decides.

Sources: OpenVINO 2026.4, pages "CPU Device", "Precision Control" and "Performance Hints and Thread
Scheduling" of its documentation; ``ov::CompiledModel::get_runtime_model`` of its API reference.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy
import openvino

from .inputs import refused_shapes, shapes_of

DEVICE = "CPU"

HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
"""In what OpenVINO computes for each precision; a quantised model keeps fp32 for what is not quantised."""
CAPABILITIES = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8"}
"""What OpenVINO calls the arithmetic that a precision needs of the CPU."""
COMPUTED = {"fp16": ("f16",), "bf16": ("bf16",), "int8": ("i8", "u8")}
"""What the runtime model writes for operations that ran in a precision."""
DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "f64": "float64",
    "i8": "int8",
    "u8": "uint8",
    "i16": "int16",
    "u16": "uint16",
    "i32": "int32",
    "u32": "uint32",
    "i64": "int64",
    "u64": "uint64",
    "boolean": "bool",
}

NOT_OPERATIONS = ("Const", "Input", "Output")
"""Nodes of the runtime model that compute nothing."""


def version() -> str:
    """Version of OpenVINO, without its build."""
    return str(openvino.__version__).partition("-")[0]


def binaries() -> list[str]:
    """The native files of OpenVINO."""
    return [str(path) for path in Path(openvino.__file__).parent.glob("libs/*.so*")]


def check(settings: dict[str, Any]) -> None:
    """Refuse a precision that OpenVINO would not compute in on this CPU.

    Raises:
        ValueError: naming what it computes in.
    """
    needed = CAPABILITIES.get(settings["precision"])
    offered = openvino.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    if needed is not None and needed not in offered:
        have = ", ".join(name for name in ("FP32", *CAPABILITIES.values()) if name in offered)
        raise ValueError(
            f"OpenVINO does not compute in {settings['precision']} on this CPU, only in {have}; "
            "write one of those as the precision"
        )


class Model:
    """A compiled model with one request.

    Raises:
        ValueError: an input is not a tensor of numbers, a shape that is given does not fit, or OpenVINO would
            use another number of threads.
        RuntimeError: OpenVINO cannot read or compile the file; it names the operation that it lacks.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        self._precision = settings["precision"]
        self._compiled, self.described = _compile(path, settings)
        self._request = self._compiled.create_infer_request()
        self._tensors = [self._request.get_input_tensor(i) for i in range(len(self._compiled.inputs))]
        self.inputs = [
            (tuple(int(size) for size in tensor.shape), DTYPES[tensor.element_type.get_type_name()])
            for tensor in self._tensors
        ]

    def set_inputs(self, arrays: list[Any]) -> None:
        """Copy the arrays into the request's input tensors."""
        for tensor, array in zip(self._tensors, arrays):
            tensor.data[...] = array

    def run(self) -> None:
        """One inference on the inputs that were set."""
        self._request.infer(share_outputs=True)

    def outputs(self) -> list[Any]:
        """Copies of the last outputs."""
        return [
            numpy.array(self._request.get_output_tensor(i).data) for i in range(len(self._compiled.outputs))
        ]

    def placement(self) -> list[dict[str, Any]] | None:
        """Operations that are left after OpenVINO's optimisations; all are on the CPU."""
        return [{"where": DEVICE, "nodes": len(self._operations()), "partitions": 1}]

    def warnings(self) -> list[dict[str, Any]]:
        """Whether no operation was computed in the precision of the target."""
        wanted = COMPUTED.get(self._precision)
        computed = {operation["runtimePrecision"] for operation in self._operations()}
        if wanted is None or computed & set(wanted):
            return []
        detail = f"no operation computes in {self._precision}, all in {', '.join(sorted(computed))}"
        return [{"code": "precision-unused", "detail": detail}]

    def _operations(self) -> list[dict[str, str]]:
        """What the runtime model says of each operation."""
        nodes = [_facts(node) for node in self._compiled.get_runtime_model().get_ordered_ops()]
        return [facts for facts in nodes if facts["layerType"] not in NOT_OPERATIONS]


def operations(
    path: str, settings: dict[str, Any], arrays: list[Any], count: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """Mean time of each operation, in the order of execution, by OpenVINO's own counters.

    The counters have the mean over all inferences in whole microseconds; the first inference, which warms up,
    is taken out of it. An operation's kind tells by which kernel it ran, and so in which precision.
    """
    compiled, _ = _compile(path, settings, PERF_COUNT=True)
    request = compiled.create_infer_request()
    for index, array in enumerate(arrays):
        request.get_input_tensor(index).data[...] = array
    request.infer(share_outputs=True)
    first = {entry.node_name: _microseconds(entry) for entry in request.profiling_info}
    total_ns = []
    for _ in range(count):
        start = time.perf_counter_ns()
        request.infer(share_outputs=True)
        total_ns.append(time.perf_counter_ns() - start)
    found = []
    for entry in request.profiling_info:
        if entry.status == openvino.ProfilingInfo.Status.EXECUTED:
            sum_us = (count + 1) * _microseconds(entry) - first[entry.node_name]
            found.append(
                {
                    "name": entry.node_name,
                    "kind": f"{entry.node_type} ({entry.exec_type})",
                    "where": DEVICE,
                    "samples_ns": [max(0, round(sum_us * 1000 / count))],
                }
            )
    return found, total_ns


def _compile(path: str, settings: dict[str, Any], **options: Any) -> tuple[Any, Any]:
    """A model compiled for the CPU as the target asks, and its inputs as the file describes them."""
    core, threads = openvino.Core(), settings["threads"]
    model = core.read_model(path)
    for parameter in model.inputs:
        kind = parameter.element_type.get_type_name()
        if kind not in DTYPES:
            raise ValueError(
                f"input '{parameter.any_name}' is a {kind}, which is not measurable: it cannot be filled"
            )
    described = [
        (each.any_name, tuple(size.get_length() if size.is_static else "?" for size in each.partial_shape))
        for each in model.inputs
    ]
    shapes = shapes_of(described, settings)
    try:
        if model.is_dynamic():
            model.reshape({parameter: list(shape) for parameter, shape in zip(model.inputs, shapes)})
        compiled = core.compile_model(
            model,
            DEVICE,
            {
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": threads,
                "ENABLE_CPU_PINNING": False,
                "INFERENCE_PRECISION_HINT": HINTS[settings["precision"]],
                **options,
            },
        )
    except RuntimeError as error:
        raise refused_shapes(error, described, settings) from error
    used = int(compiled.get_property("INFERENCE_NUM_THREADS"))
    if used != threads:
        raise ValueError(
            f"OpenVINO uses {used} threads here when asked for {threads}: it takes no more than there are "
            f"cores for the process; write @{used}"
        )
    return compiled, described


def _facts(node: Any) -> dict[str, str]:
    """What the runtime model says of a node: layerType, runtimePrecision and others."""
    return {name: str(value.astype(str)) for name, value in node.get_rt_info().items()}


def _microseconds(entry: Any) -> int:
    """The mean time of an operation."""
    microseconds: int = round(entry.real_time.total_seconds() * 1_000_000)
    return microseconds
