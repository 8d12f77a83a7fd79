"""Engine of ONNX Runtime, on the CPU or on another execution provider: ``.onnx`` and ``.ort`` files.

Inputs and outputs are bound to buffers that the runtime owns, on an NVIDIA GPU in its memory, so that ``run``
is one inference from input ready to output ready, without copies to or from numpy. ONNX Runtime waits for the
accelerator at the end of each run.

Sources: ONNX Runtime 1.31, pages "Execution Providers", "I/O Binding" and "Profiling tools" of its
documentation, and ``OrtApi::Session_GetEpGraphAssignmentInfo`` of its C API.
"""

from __future__ import annotations

import itertools
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import onnxruntime

from . import nvidia
from .inputs import shapes_of
from .providers import ASYNCHRONOUS, NVIDIA, PACKAGES

CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(uint32)": "uint32",
    "tensor(int64)": "int64",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(bfloat16)": "bfloat16",
    "tensor(int4)": "int4",
    "tensor(uint4)": "uint4",
    "tensor(float8e4m3fn)": "float8e4m3fn",
    "tensor(float8e4m3fnuz)": "float8e4m3fnuz",
    "tensor(float8e5m2)": "float8e5m2",
    "tensor(float8e5m2fnuz)": "float8e5m2fnuz",
}

ELEMENTS = {
    "bfloat16": 16,
    "float8e4m3fn": 17,
    "float8e4m3fnuz": 18,
    "float8e5m2": 19,
    "float8e5m2fnuz": 20,
    "uint4": 21,
    "int4": 22,
}
"""The numbers of ONNX for types that numpy lacks."""
PACKED = ("uint4", "int4")
"""Types of half a byte, whose buffers are left as they are: numpy cannot write them."""


def version() -> str:
    """Version of ONNX Runtime."""
    return str(onnxruntime.__version__)


def binaries() -> list[str]:
    """The native files of ONNX Runtime."""
    return [str(path) for path in Path(onnxruntime.__file__).parent.glob("capi/*") if ".so" in path.suffixes]


def check(settings: dict[str, Any]) -> None:
    """Refuse an execution provider that this build of ONNX Runtime lacks.

    Raises:
        ValueError: naming those that it has, and the package with the one that is asked for.
    """
    provider, available = settings["delegate"], onnxruntime.get_available_providers()
    if provider not in available:
        package = PACKAGES.get(provider)
        source = f"pip install {package}" if package else "it needs a build of ONNX Runtime of one's own"
        raise ValueError(
            f"this ONNX Runtime {version()} has no {provider}, only {', '.join(available)}; {source}"
        )


class Model:
    """A session with one thread pool, in sequential mode.

    Raises:
        ValueError: the provider is not in this build, an input is not a tensor of numbers, or a shape that is
            given does not fit.
        RuntimeError: the provider is there, but could not be started.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        check(settings)
        self._path, self._settings = path, settings
        self._session = _session(path, settings, _options(settings))
        self._binding = self._session.io_binding()
        self._where = "cuda" if settings["delegate"] in NVIDIA else "cpu"
        nodes = self._session.get_inputs()
        for node in nodes:
            if node.type not in DTYPES:
                raise ValueError(
                    f"input '{node.name}' is a {node.type}, which is not measurable: only tensors of numbers "
                    "can be filled; cut the model behind that input"
                )
        self._names = [node.name for node in nodes]
        self.described = [
            (node.name, tuple(size if isinstance(size, int) else size or "?" for size in node.shape))
            for node in nodes
        ]
        dtypes = [DTYPES[node.type] for node in nodes]
        self.inputs = list(zip(shapes_of(self.described, settings), dtypes))
        for node in self._session.get_outputs():
            self._binding.bind_output(node.name, self._where)
        self._arrays: list[Any] = []
        self._values: list[Any] = []
        if self._where != "cpu":
            self.copy_in, self.copy_out = self._copy_in, self._copy_out

    def set_inputs(self, arrays: list[Any]) -> None:
        """Copy the arrays into the runtime's input buffers."""
        self._arrays = arrays
        self._values = _values(arrays, self.inputs, self._where)
        self._copy_in()
        for name, value in zip(self._names, self._values):
            self._binding.bind_ortvalue_input(name, value)

    def run(self) -> None:
        """One inference on the inputs that were set."""
        self._session.run_with_iobinding(self._binding)

    def outputs(self) -> list[Any]:
        """Copies of the last outputs."""
        return list(self._binding.copy_outputs_to_cpu())

    def placement(self) -> list[dict[str, Any]] | None:
        """Which provider took how many operations of the graph.

        None before ONNX Runtime 1.24, and for ``.ort`` files, of which it does not tell.

        Operations are counted after ONNX Runtime's basic optimisations and before it fuses any. Where several
        providers share them, a partition is a stretch in order of execution; one more inference, in a
        session of its own, tells it.
        """
        if not hasattr(self._session, "get_provider_graph_assignment_info"):
            return None
        nodes: dict[str, int] = {}
        for subgraph in self._session.get_provider_graph_assignment_info():
            nodes[subgraph.ep_name] = nodes.get(subgraph.ep_name, 0) + len(subgraph.get_nodes())
        if not nodes:
            return None
        partitions = dict.fromkeys(nodes, 1)
        if len(nodes) > 1:
            _, runs = _profile(self._path, self._settings, self._arrays, 1)
            order = [provider for provider, _ in itertools.groupby(event["where"] for event in runs[0])]
            partitions = {provider: max(1, order.count(provider)) for provider in nodes}
        return [
            {"where": provider, "nodes": count, "partitions": partitions[provider]}
            for provider, count in nodes.items()
        ]

    def _copy_in(self) -> None:
        _write(self._values, self._arrays, self.inputs)

    def _copy_out(self) -> None:
        for value in self._binding.get_outputs():
            value.numpy()


def operations(
    path: str, settings: dict[str, Any], arrays: list[Any], count: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """Time of each operation by ONNX Runtime's own profiler, which counts in microseconds.

    Operations are those that are left after all optimisations. The time of an ``If``, ``Loop`` or ``Scan``
    contains that of the operations in it, which are not listed.

    Raises:
        NotImplementedError: the provider's kernels run on after the time that the profiler gives them.
    """
    check(settings)
    if settings["delegate"] in ASYNCHRONOUS:
        raise NotImplementedError(
            f"ONNX Runtime's profiler times how long {settings['delegate']} takes to start a kernel, not how "
            "long that runs; profile the model on another runtime, or with the vendor's tool"
        )
    total_ns, runs = _profile(path, settings, arrays, count)
    found = [
        {**{key: event[key] for key in ("name", "kind", "where")}, "samples_ns": []} for event in runs[0]
    ]
    for run in runs:
        if [event["name"] for event in run] != [entry["name"] for entry in found]:
            raise RuntimeError("the model does not execute the same operations each time")
        for entry, event in zip(found, run):
            entry["samples_ns"].append(event["duration_ns"])
    return found, total_ns


def accelerator(settings: dict[str, Any]) -> str:
    """Name and driver of the NVIDIA GPU; empty on the CPU, and for providers that do not tell."""
    if settings["delegate"] not in NVIDIA:
        return ""
    found = nvidia.smi(nvidia.FIRST, "name", "driver_version")
    return f"{found[0]}, driver {found[1]}" if found else "NVIDIA GPU, driver unknown"


def accelerator_conditions(settings: dict[str, Any]) -> dict[str, Any]:
    """Clock, temperature and what holds the clock of an NVIDIA GPU down."""
    return nvidia.conditions(nvidia.FIRST) if settings["delegate"] in NVIDIA else {}


def _options(settings: dict[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    # XNNPACK has a thread pool of its own, beside which ONNX Runtime asks for no other
    own_threads = settings["delegate"] == "XnnpackExecutionProvider"
    options.intra_op_num_threads = 1 if own_threads else settings["threads"]
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _provider_options(settings: dict[str, Any]) -> dict[str, str]:
    """Options by which a provider gets the threads and the precision of the target."""
    threads = str(settings["threads"])
    return {
        "OpenVINOExecutionProvider": {"num_of_threads": threads},
        "TensorrtExecutionProvider": {
            "trt_fp16_enable": str(settings["precision"] == "fp16"),
            "trt_int8_enable": str(settings["precision"] == "int8"),
        },
        "XnnpackExecutionProvider": {"intra_op_num_threads": threads},
    }.get(settings["delegate"], {})


def _values(arrays: list[Any], inputs: list[Any], where: str) -> list[Any]:
    """Buffers of the runtime for some inputs, each a shape and a type."""
    return [
        onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            shape, ELEMENTS.get(dtype, array.dtype.type), where, 0
        )
        for array, (shape, dtype) in zip(arrays, inputs)
    ]


def _write(values: list[Any], arrays: list[Any], inputs: list[Any]) -> None:
    """Copy arrays into buffers of the runtime."""
    for value, array, (_, dtype) in zip(values, arrays, inputs):
        if dtype not in PACKED:
            value.update_inplace(array)


def _said(error: Exception) -> str:
    """What ONNX Runtime says of a model that it refuses, without the places in its own code."""
    return " ".join(
        re.sub(r"^.*? failed:(/\S+:\d+ .*\) (?=[A-Z]))?", "", str(error), flags=re.DOTALL).split()
    )


def _session(path: str, settings: dict[str, Any], options: Any) -> Any:
    """A session that has the provider; ONNX Runtime itself would go on without one that fails to start."""
    provider = settings["delegate"]
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=[(provider, _provider_options(settings))], enable_fallback=0
        )
    except Exception as error:
        raise RuntimeError(_said(error)) from error
    if provider not in session.get_providers():
        raise RuntimeError(
            f"{provider} is in this ONNX Runtime but could not be started, often because a library or driver "
            f"that it needs is missing (the message is on standard error); it has {session.get_providers()}"
        )
    return session


def _profile(
    path: str, settings: dict[str, Any], arrays: list[Any], count: int
) -> tuple[list[int], list[list[dict[str, Any]]]]:
    """Profile inferences after one to warm up: the time of each, and the operations of each in order."""
    options = _options(settings)
    with tempfile.TemporaryDirectory(prefix="lathe-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = _session(path, settings, options)
        binding, nodes = session.io_binding(), session.get_inputs()
        inputs = [(array.shape, DTYPES[node.type]) for node, array in zip(nodes, arrays)]
        values = _values(arrays, inputs, "cpu")
        _write(values, arrays, inputs)
        for node, value in zip(nodes, values):
            binding.bind_ortvalue_input(node.name, value)
        for node in session.get_outputs():
            binding.bind_output(node.name, "cpu")
        total_ns = []
        for _ in range(1 + count):
            start = time.perf_counter_ns()
            session.run_with_iobinding(binding)
            total_ns.append(time.perf_counter_ns() - start)
        events = json.loads(Path(session.end_profiling()).read_text())
    runs: list[list[dict[str, Any]]] = [[]]
    for event in events:  # written as they end: those of an inference come before its "model_run"
        if event.get("name") == "model_run":
            runs.append([])
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kind = event["args"]["op_name"]
            name = event["name"][: -len("_kernel_time")].strip()
            if name in ("", "fused"):
                name = f"{kind}_{event['args']['node_index']}"
            runs[-1].append(
                {
                    "name": name,
                    "kind": kind,
                    "where": event["args"]["provider"],
                    "start_us": event["ts"],
                    "duration_ns": event["dur"] * 1000,
                }
            )
    complete = [_outermost(run) for run in runs[1:-1]]
    if len(complete) < count:
        raise RuntimeError(
            f"the profile has {len(complete)} of {count} inferences: ONNX Runtime keeps a million events"
        )
    return total_ns[1:], complete


def _outermost(run: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The operations that are in no ``If``, ``Loop`` or ``Scan``; the latter end after what is in them."""
    kept: list[dict[str, Any]] = []
    for event in run:
        if event["kind"] in CONTROL_FLOW:
            kept = [each for each in kept if each["start_us"] < event["start_us"]]
        kept.append(event)
    return kept
