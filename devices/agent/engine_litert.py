"""Engine of LiteRT: ``.tflite`` files, on the CPU with its default XNNPACK delegate, on the GPU or an NPU.

Sources: the modules ``interpreter``, ``compiled_model``, ``environment`` and ``options`` of ai-edge-litert
2.3, and the headers ``litert/c/litert_*.h`` of LiteRT, with its page on the profiler.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from .dispatch import dispatch_library, environment_of, made_for
from .inputs import shapes_of
from .interpreter import COMPILED, OnCpu, chosen_signature, stretches


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
            accelerator finds no GPU, or does not take all of the model; or there is no way to the NPU.
    """
    if settings["delegate"] == "gpu":
        return OnGpu(path, settings)
    if settings["delegate"] == "npu":
        return OnNpu(path, settings)
    return OnCpu(Interpreter(model_path=path, num_threads=settings["threads"]), settings)


class Compiled:
    """A compiled model of LiteRT, which an accelerator runs.

    Buffers are LiteRT's own, in the accelerator's memory. Times of ``run`` contain the wait for it.
    """

    def __init__(self, path: str, model: Any, settings: dict[str, Any]) -> None:
        self._path, self._model = path, model
        signatures = self._model.get_signature_list()
        graphs = {key: index for index, key in enumerate(signatures)}
        key, self._index = chosen_signature(graphs, settings.get("signature", ""))
        names = signatures[key]
        inputs = self._model.get_input_tensor_details(key)
        outputs = self._model.get_output_tensor_details(key)
        self.inputs = [
            (tuple(int(size) for size in inputs[name]["shape"]), numpy.dtype(inputs[name]["dtype"]).name)
            for name in names["inputs"]
        ]
        self.described = [(name, shape) for name, (shape, _) in zip(names["inputs"], self.inputs)]
        shapes_of(self.described, settings)
        self._details = [outputs[name] for name in names["outputs"]]
        self._in = self._model.create_input_buffers(self._index)
        self._out = self._model.create_output_buffers(self._index)
        self._arrays: list[Any] = []

    def set_inputs(self, arrays: list[Any]) -> None:
        """Copy the arrays into LiteRT's buffers."""
        self._arrays = arrays
        self.copy_in()

    def run(self) -> None:
        """One inference on the inputs that were set."""
        self._model.run_by_index(self._index, self._in, self._out)

    def outputs(self) -> list[Any]:
        """Copies of the last outputs."""
        return [
            buffer.read(int(numpy.prod(entry["shape"])), numpy.dtype(entry["dtype"])).reshape(entry["shape"])
            for buffer, entry in zip(self._out, self._details)
        ]

    def copy_in(self) -> None:
        """The inputs to the accelerator once more."""
        for buffer, array in zip(self._in, self._arrays):
            buffer.write(array)

    def copy_out(self) -> None:
        """The outputs back to the processor."""
        self.outputs()


class OnGpu(Compiled):
    """A model on LiteRT's GPU accelerator, which takes all of it or fails to load."""

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        accelerator, options, compiled_model = compiling("gpu")
        chosen = options.Options(
            hardware_accelerators=accelerator.GPU,
            gpu_options=options.GpuOptions(enforce_f32=settings["precision"] == "fp32"),
        )
        try:
            model = compiled_model.from_file(path, options=chosen)
        except RuntimeError as error:
            raise RuntimeError(
                "LiteRT's GPU accelerator found no GPU (it needs a Vulkan, OpenCL or Metal driver), or does "
                f"not take every operation of this model; standard error tells which: {error}"
            ) from error
        if not model.is_fully_accelerated():
            raise RuntimeError("LiteRT's GPU accelerator does not take every operation of this model")
        super().__init__(path, model, settings)

    def placement(self) -> list[dict[str, Any]] | None:
        """All operations on the GPU: otherwise the model would not have loaded."""
        return [{"where": "gpu", "nodes": len(operations_in(self._path)), "partitions": 1}]


class OnNpu(Compiled):
    """A model of which an NPU runs what was compiled for it, and the CPU the rest.

    Nothing is compiled here: a file that nobody compiled runs on the CPU. Each part that was compiled counts
    as one operation, since the file does not tell how many it stands for.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        accelerator, options, compiled_model = compiling("npu")
        self._kinds = operations_in(path)
        hardware, environment = accelerator.CPU, None
        if COMPILED in self._kinds:
            environment = environment_of(dispatch_library(made_for(path)))
            hardware |= accelerator.NPU
        chosen = options.Options(
            hardware_accelerators=hardware,
            cpu_options=options.CpuOptions(num_threads=settings["threads"]),
        )
        model = compiled_model.from_file(path, environment=environment, options=chosen)
        super().__init__(path, model, settings)

    def placement(self) -> list[dict[str, Any]] | None:
        """The compiled parts on the NPU, and the operations that were left to the CPU."""
        compiled = [kind == COMPILED for kind in self._kinds]
        parts = [
            {"where": "npu", "nodes": sum(compiled), "partitions": sum(compiled)},
            {"where": "cpu", "nodes": len(compiled) - sum(compiled), "partitions": stretches(compiled)},
        ]
        return [part for part in parts if part["nodes"]]


def compiling(option: str) -> tuple[Any, Any, Any]:
    """What compiled models are made with: the accelerators, the module of the options, the class.

    Raises:
        RuntimeError: this LiteRT has none.
    """
    try:
        from ai_edge_litert import options
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    except ImportError as error:
        raise RuntimeError(f"LiteRT {version()} is too old for '+{option}'; 2.3 is not: {error}") from error
    return HardwareAccelerator, options, CompiledModel


def operations_in(path: str) -> list[str]:
    """The kinds of the operations of the first graph, whether or not this machine has them."""
    plain = Interpreter(
        model_path=path, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    return [str(entry["op_name"]) for entry in plain._get_ops_details()]


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


class Layout(ctypes.Structure):
    """``LiteRtLayout`` of ``litert_layout.h``."""

    _fields_ = [("rank", ctypes.c_uint32), ("sizes", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8)]


class RankedType(ctypes.Structure):
    """``LiteRtRankedTensorType`` of ``litert_model_types.h``."""

    _fields_ = [("element", ctypes.c_int), ("layout", Layout)]


def operations(
    path: str, settings: dict[str, Any], arrays: list[Any], count: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """Time of each operation by LiteRT's own profiler, which counts in microseconds.

    What XNNPACK took is listed as the operations that XNNPACK makes of it. The Python package has no way to
    the profiler, so that the C interface of its library is called.

    Raises:
        NotImplementedError: another LiteRT than 2.3, or an accelerator.
        RuntimeError: LiteRT cannot load or run the model.
    """
    accelerator = "" if settings["delegate"] == "xnnpack" else str(settings["delegate"]).upper()
    if not version().startswith(PROFILED_VERSION) or accelerator:
        raise NotImplementedError(
            "operations can be profiled with LiteRT 2.3 on the CPU, or by LiteRT's own tool with '+native'; "
            f"this is LiteRT {version()}" + (f" on the {accelerator}" if accelerator else "")
        )
    model = Model(path, settings)
    profiled = Profiled(path, settings["threads"], model.signature, dict(zip(model.names, arrays)))
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

    def __init__(self, path: str, threads: int, signature: str, arrays: dict[str, Any]) -> None:
        self._library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).parent / "libLiteRt.so"))
        self._environment = self._made("CreateEnvironment", 0, None)
        model = self._made("CreateModelFromFile", self._environment, path.encode())
        options = self._made("CreateOptions")
        self._call("SetOptionsHardwareAccelerators", options, CPU_ACCELERATOR)
        self._add(options, b"runtime_options_string", b"enable_profiling = true\n")
        self._add(options, b"xnnpack", b"num_threads = %d\n" % threads)
        self._model = self._made("CreateCompiledModel", self._environment, model, options)
        self._profiler = self._made("CompiledModelGetProfiler", self._model)
        self._index, chosen = self._signature(model, signature)
        inputs, outputs = self._tensors(chosen, "Input"), self._tensors(chosen, "Output")
        values = [arrays[self._text("GetTensorName", tensor)] for tensor in inputs]
        in_types, out_types = ([self._type(tensor) for tensor in tensors] for tensors in (inputs, outputs))
        self._resize(in_types, out_types, [array.shape for array in values])
        self._inputs = [self._buffer("Input", *each) for each in enumerate(in_types)]
        self._outputs = [self._buffer("Output", *each) for each in enumerate(out_types)]
        for array, buffer in zip(values, self._inputs):
            self._write(buffer, array.tobytes())

    def run(self) -> tuple[int, list[tuple[str, str, int]]]:
        """One inference: its time, and kind, place and time of each operation in order; nanoseconds."""
        self._call("ResetProfiler", self._profiler)
        self._call("StartProfiler", self._profiler)
        inputs, outputs = self._array(self._inputs), self._array(self._outputs)
        sizes = ctypes.c_size_t(len(self._inputs)), ctypes.c_size_t(len(self._outputs))
        start = time.perf_counter_ns()
        self._call("RunCompiledModel", self._model, self._index, sizes[0], inputs, sizes[1], outputs)
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
            raise RuntimeError(
                f"LiteRt{name} failed with status {status}; standard error tells more. LiteRT's profiler "
                "fails with some models that its interpreter runs, above all with outputs of sizes not "
                "known before; LiteRT's own tool may profile them: '+native'"
            )

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

    def _signature(self, model: ctypes.c_void_p, wanted: str) -> tuple[ctypes.c_size_t, ctypes.c_void_p]:
        """Number and handle of the signature with a key; the first where the file has none."""
        count = ctypes.c_size_t()
        self._call("GetNumModelSignatures", model, ctypes.byref(count))
        for index in range(count.value):
            signature = self._made("GetModelSignature", model, ctypes.c_size_t(index))
            if not wanted or self._text("GetSignatureKey", signature) == wanted:
                return ctypes.c_size_t(index), signature
        raise RuntimeError(f"LiteRT finds no signature '{wanted}' in the file")

    def _text(self, name: str, handle: ctypes.c_void_p) -> str:
        """What a function calls something."""
        found = ctypes.c_char_p()
        self._call(name, handle, ctypes.byref(found))
        return (found.value or b"").decode()

    def _tensors(self, signature: ctypes.c_void_p, kind: str) -> list[ctypes.c_void_p]:
        count = ctypes.c_size_t()
        self._call(f"GetNumSignature{kind}s", signature, ctypes.byref(count))
        return [
            self._made(f"GetSignature{kind}TensorByIndex", signature, ctypes.c_size_t(index))
            for index in range(count.value)
        ]

    def _type(self, tensor: ctypes.c_void_p) -> RankedType:
        ranked_type = RankedType()
        self._call("GetRankedTensorType", tensor, ctypes.byref(ranked_type))
        return ranked_type

    def _resize(self, inputs: list[RankedType], outputs: list[RankedType], shapes: list[Any]) -> None:
        """Bring types of inputs and outputs to other shapes of the inputs, where those differ."""
        changed = False
        for index, (each, shape) in enumerate(zip(inputs, shapes)):
            if list(shape) != each.layout.sizes[: len(shape)]:
                changed = True
                each.layout.sizes[: len(shape)] = shape
                sizes, rank = (ctypes.c_int * len(shape))(*shape), ctypes.c_size_t(len(shape))
                place = self._model, self._index, ctypes.c_size_t(index)
                self._call("CompiledModelResizeInputTensorNonStrict", *place, sizes, rank)
        if changed:
            layouts, count = (Layout * len(outputs))(), ctypes.c_size_t(len(outputs))
            update = ctypes.c_bool(True)
            self._call(
                "GetCompiledModelOutputTensorLayouts", self._model, self._index, count, layouts, update
            )
            for each, layout in zip(outputs, layouts):
                each.layout = layout

    def _buffer(self, kind: str, index: int, ranked_type: RankedType) -> ctypes.c_void_p:
        requirements = self._made(
            f"GetCompiledModel{kind}BufferRequirements",
            self._model,
            self._index,
            ctypes.c_size_t(index),
        )
        return self._made(
            "CreateManagedTensorBufferFromRequirements",
            self._environment,
            ctypes.byref(ranked_type),
            requirements,
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
