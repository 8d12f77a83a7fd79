"""Engine of LiteRT: ``.tflite`` files, on the CPU with its default XNNPACK delegate, or on the GPU.

Sources: the modules ``interpreter``, ``compiled_model`` and ``gpu_options`` of ai-edge-litert 2.3, and the
headers ``litert/c/litert_*.h`` of LiteRT, with its page on the profiler.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from .interpreter import OnCpu


def version() -> str:
    """Version of LiteRT."""
    return str(ai_edge_litert.__version__)


def binaries() -> list[str]:
    """The native files that an interpreter or a compiled model uses."""
    folder = Path(ai_edge_litert.__file__).parent
    return [
        str(path)
        for pattern in (
            "libpywrap_*.so",
            "_pywrap_*interpreter_wrapper*.so",
            "_pywrap_*compiled_model_wrapper*.so",
            "libLiteRt*.so",
        )
        for path in folder.glob(pattern)
    ]


def Model(path: str, settings: dict[str, Any]) -> Any:
    """A loaded model, where the options want it.

    Raises:
        ValueError: the file is no model.
        RuntimeError: the model needs operations or types that LiteRT lacks, which are named; or the GPU
            accelerator finds no GPU, or does not take all of the model.
    """
    if settings["delegate"] == "gpu":
        return OnGpu(path, settings)
    return OnCpu(Interpreter(model_path=path, num_threads=settings["threads"]))


class OnGpu:
    """A compiled model on LiteRT's GPU accelerator, which takes all of it or fails to load.

    Buffers are LiteRT's own, in GPU memory. Times of ``run`` contain the wait for the GPU.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        try:
            from ai_edge_litert.compiled_model import CompiledModel
            from ai_edge_litert.hardware_accelerator import HardwareAccelerator
            from ai_edge_litert.options import GpuOptions, Options
        except ImportError as error:
            raise RuntimeError(f"LiteRT {version()} is too old for '+gpu'; 2.3 is not: {error}") from error
        options = Options(
            hardware_accelerators=HardwareAccelerator.GPU,
            gpu_options=GpuOptions(enforce_f32=settings["precision"] == "fp32"),
        )
        try:
            self._model = CompiledModel.from_file(path, options=options)
        except RuntimeError as error:
            raise RuntimeError(
                "LiteRT's GPU accelerator found no GPU (it needs a Vulkan, OpenCL or Metal driver), or does "
                f"not take every operation of this model; standard error tells which: {error}"
            ) from error
        if not self._model.is_fully_accelerated():
            raise RuntimeError("LiteRT's GPU accelerator does not take every operation of this model")
        self._path = path
        key, names = next(iter(self._model.get_signature_list().items()))
        inputs = self._model.get_input_tensor_details(key)
        outputs = self._model.get_output_tensor_details(key)
        self.inputs = [
            (tuple(int(size) for size in inputs[name]["shape"]), numpy.dtype(inputs[name]["dtype"]).name)
            for name in names["inputs"]
        ]
        self._details = [outputs[name] for name in names["outputs"]]
        self._in = self._model.create_input_buffers(0)
        self._out = self._model.create_output_buffers(0)
        self._arrays: list[Any] = []

    def set_inputs(self, arrays: list[Any]) -> None:
        """Copy the arrays into the GPU's buffers."""
        self._arrays = arrays
        self.copy_in()

    def run(self) -> None:
        """One inference on the inputs that were set."""
        self._model.run_by_index(0, self._in, self._out)

    def outputs(self) -> list[Any]:
        """Copies of the last outputs."""
        return [
            buffer.read(int(numpy.prod(entry["shape"])), numpy.dtype(entry["dtype"])).reshape(entry["shape"])
            for buffer, entry in zip(self._out, self._details)
        ]

    def placement(self) -> list[dict[str, Any]] | None:
        """All operations on the GPU: otherwise the model would not have loaded."""
        plain = Interpreter(
            model_path=self._path,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        return [{"where": "gpu", "nodes": len(plain._get_ops_details()), "partitions": 1}]

    def copy_in(self) -> None:
        """The inputs to the GPU once more."""
        for buffer, array in zip(self._in, self._arrays):
            buffer.write(array)

    def copy_out(self) -> None:
        """The outputs back to the processor."""
        self.outputs()


PROFILED_VERSION = "2.3."
"""The only LiteRT whose C structures below are known; another one would be misread, not refused."""

CPU_ACCELERATOR, WRITE = 1, 1

WHERE = {2: "cpu", 4: "xnnpack", 8: "xnnpack"}
"""Profiler events that are operations: of LiteRT's own kernels, of a delegate, and within a delegate."""


class ProfiledEvent(ctypes.Structure):
    """``ProfiledEventData`` of ``litert_profiler_event.h``."""

    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_uint64 * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int),
    ]


def operations(
    path: str, settings: dict[str, Any], arrays: list[Any], count: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """Time of each operation by LiteRT's own profiler, which counts in microseconds.

    What XNNPACK took is listed as the operations that XNNPACK makes of it. The Python package has no way to
    the profiler, so that the C interface of its library is called.

    Raises:
        NotImplementedError: another LiteRT than 2.3, or the GPU.
        RuntimeError: LiteRT cannot load or run the model.
    """
    on_gpu = settings["delegate"] == "gpu"
    if not version().startswith(PROFILED_VERSION) or on_gpu:
        raise NotImplementedError(
            "operations can be profiled with LiteRT 2.3 on the CPU, or by LiteRT's own tool with '+native'; "
            f"this is LiteRT {version()}" + (" on the GPU" if on_gpu else "")
        )
    names = Model(path, settings).names
    profiled = Profiled(path, settings["threads"], dict(zip(names, arrays)))
    profiled.run()
    found: list[dict[str, Any]] = []
    total_ns = []
    for _ in range(count):
        elapsed_ns, events = profiled.run()
        total_ns.append(elapsed_ns)
        if not found:
            found = [
                {"name": f"{kind}_{index}", "kind": kind, "where": where, "samples_ns": []}
                for index, (kind, where, _) in enumerate(events)
            ]
        if [kind for kind, _, _ in events] != [entry["kind"] for entry in found]:
            raise RuntimeError("the model does not execute the same operations each time")
        for entry, (_, _, duration_ns) in zip(found, events):
            entry["samples_ns"].append(duration_ns)
    return found, total_ns


class Profiled:
    """A compiled model with its profiler, by LiteRT's C interface; it lasts as long as the process."""

    def __init__(self, path: str, threads: int, arrays: dict[str, Any]) -> None:
        self._library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).parent / "libLiteRt.so"))
        self._environment = self._made("CreateEnvironment", 0, None)
        model = self._made("CreateModelFromFile", self._environment, path.encode())
        options = self._made("CreateOptions")
        self._call("SetOptionsHardwareAccelerators", options, CPU_ACCELERATOR)
        self._add(options, b"runtime_options_string", b"enable_profiling = true\n")
        self._add(options, b"xnnpack", b"num_threads = %d\n" % threads)
        self._model = self._made("CreateCompiledModel", self._environment, model, options)
        self._profiler = self._made("CompiledModelGetProfiler", self._model)
        signature = self._made("GetModelSignature", model, ctypes.c_size_t(0))
        inputs, outputs = self._tensors(signature, "Input"), self._tensors(signature, "Output")
        self._inputs = [self._buffer("Input", index, tensor) for index, tensor in enumerate(inputs)]
        self._outputs = [self._buffer("Output", index, tensor) for index, tensor in enumerate(outputs)]
        for tensor, buffer in zip(inputs, self._inputs):
            name = ctypes.c_char_p()
            self._call("GetTensorName", tensor, ctypes.byref(name))
            self._write(buffer, arrays[(name.value or b"").decode()].tobytes())

    def run(self) -> tuple[int, list[tuple[str, str, int]]]:
        """One inference: its time, and kind, place and time of each operation in order; nanoseconds."""
        self._call("ResetProfiler", self._profiler)
        self._call("StartProfiler", self._profiler)
        inputs, outputs = self._array(self._inputs), self._array(self._outputs)
        sizes = ctypes.c_size_t(len(self._inputs)), ctypes.c_size_t(len(self._outputs))
        start = time.perf_counter_ns()
        self._call("RunCompiledModel", self._model, ctypes.c_size_t(0), sizes[0], inputs, sizes[1], outputs)
        elapsed_ns = time.perf_counter_ns() - start
        count = ctypes.c_int()
        self._call("GetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (ProfiledEvent * count.value)()
        self._call("GetProfilerEvents", self._profiler, count, events)
        return elapsed_ns, [
            (event.tag.decode(), WHERE[event.kind], event.elapsed_us * 1000)
            for event in events
            if event.kind in WHERE
        ]

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status:
            raise RuntimeError(f"LiteRt{name} failed with status {status}; standard error tells more")

    def _made(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """What a function puts where its last argument points."""
        made = ctypes.c_void_p()
        self._call(name, *arguments, ctypes.byref(made))
        return made

    def _add(self, options: ctypes.c_void_p, identifier: bytes, toml: bytes) -> None:
        standard = ctypes.CDLL(None)
        standard.strdup.restype = ctypes.c_void_p
        owned = ctypes.c_void_p(standard.strdup(toml))
        self._call(
            "AddOpaqueOptions", options, self._made("CreateOpaqueOptions", identifier, owned, standard.free)
        )

    def _tensors(self, signature: ctypes.c_void_p, kind: str) -> list[ctypes.c_void_p]:
        count = ctypes.c_size_t()
        self._call(f"GetNumSignature{kind}s", signature, ctypes.byref(count))
        return [
            self._made(f"GetSignature{kind}TensorByIndex", signature, ctypes.c_size_t(index))
            for index in range(count.value)
        ]

    def _buffer(self, kind: str, index: int, tensor: ctypes.c_void_p) -> ctypes.c_void_p:
        ranked_type = (ctypes.c_ubyte * 256)()  # LiteRtRankedTensorType, which is smaller
        self._call("GetRankedTensorType", tensor, ranked_type)
        requirements = self._made(
            f"GetCompiledModel{kind}BufferRequirements",
            self._model,
            ctypes.c_size_t(0),
            ctypes.c_size_t(index),
        )
        return self._made(
            "CreateManagedTensorBufferFromRequirements", self._environment, ranked_type, requirements
        )

    def _write(self, buffer: ctypes.c_void_p, data: bytes) -> None:
        size, address = ctypes.c_size_t(), ctypes.c_void_p()
        self._call("GetTensorBufferPackedSize", buffer, ctypes.byref(size))
        if size.value != len(data):
            raise RuntimeError(f"an input of {size.value} bytes is given {len(data)}")
        self._call("LockTensorBuffer", buffer, ctypes.byref(address), WRITE)
        ctypes.memmove(address, data, len(data))
        self._call("UnlockTensorBuffer", buffer)

    @staticmethod
    def _array(pointers: list[ctypes.c_void_p]) -> Any:
        return (ctypes.c_void_p * len(pointers))(*[pointer.value for pointer in pointers])
