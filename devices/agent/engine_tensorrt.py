"""Engine of TensorRT by its Python API: builds ``.onnx`` on the device, loads ``.engine`` and ``.plan``.

Built engines are kept in ``$XDG_CACHE_HOME/lathe/tensorrt``, under a digest of everything that decides them:
the bytes of the file, the build options, the versions of TensorRT and of the driver, the GPU and its compute
capability. The tactic timings of earlier builds are only a hint: an incompatible cache is dropped.

Inputs and outputs stay in memory of the GPU; ``run`` enqueues one inference and waits for its stream. Source:
the TensorRT API of Python, versions 8.6 to 11.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any, Iterator

import numpy
import tensorrt

from . import cuda, nvidia
from .inputs import shapes_of
from .tensorrt_engines import PRECISION_FLAGS, has_external_weights, lacks_precision


def version() -> str:
    """Version of TensorRT."""
    return str(tensorrt.__version__)


def binaries() -> list[str]:
    """The libraries of TensorRT that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(None, 5)[-1] for line in lines if "libnv" in line and ".so" in line}
    return sorted(path for path in paths if re.search(r"/libnv(infer|onnxparser)[^/]*$", path))


def accelerator(settings: dict[str, Any]) -> str:
    """Name, compute capability and driver of the GPU."""
    gpu = cuda.gpu_identity()
    return f"{gpu['name']}, compute capability {gpu['compute_capability']}, driver {gpu['driver']}"


def accelerator_conditions(settings: dict[str, Any]) -> dict[str, Any]:
    """Clock, temperature and throttling of the GPU now; not called while a model is timed."""
    return nvidia.conditions(nvidia.FIRST)


def cache_folder() -> Path:
    """Where engines and timing caches are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lathe" / "tensorrt"


def key(parts: dict[str, Any]) -> str:
    """A name for a cached file, from everything that decides its content."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def engine_key(
    data: bytes, flags: list[str], tf32: bool, shapes: dict[str, Any], gpu: dict[str, str]
) -> str | None:
    """The name of the engine of an ONNX file; None where its weights are in a file of their own."""
    if has_external_weights(data):
        return None
    parts = {"model": hashlib.sha256(data).hexdigest(), "flags": flags, "tf32": tf32, "version": version()}
    return key({**parts, "gpu": gpu, **({"shapes": shapes} if shapes else {})})


def builder_flags(precision: str, known: set[str]) -> list[str]:
    """The builder flags of a precision; none where types come from the model, as from TensorRT 11 on.

    Raises:
        ValueError: this TensorRT does not know the precision.
    """
    wanted = PRECISION_FLAGS[precision]
    if "FP16" not in known:
        return []
    missing = [flag for flag in wanted if flag not in known]
    if missing:
        raise ValueError(f"TensorRT {version()} has no precision {precision}: no builder flag {missing[0]}")
    return list(wanted)


def write(path: Path, data: Any) -> None:
    """Write a file as a whole, where that is possible: a cache is not worth an error."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)


def make_logger() -> Any:
    """A logger that keeps errors for exceptions."""

    class Logger(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (tensorrt.ILogger.Severity.ERROR, tensorrt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

        def error(self, what: str) -> Exception:
            detail = "; ".join([what, *self.errors[-3:]])
            no_memory = re.search(r"out ?of ?memory", detail, re.IGNORECASE)
            return MemoryError(detail) if no_memory else RuntimeError(detail)

    return Logger()


def build(path: str, settings: dict[str, Any], logger: Any) -> bytes:
    """The serialised engine of an ONNX file, for the shapes that are given."""
    builder = tensorrt.Builder(logger)
    kinds = tensorrt.NetworkDefinitionCreationFlag
    explicit = int(version().split(".")[0]) < 10
    network = builder.create_network(1 << int(kinds.EXPLICIT_BATCH) if explicit else 0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        found = [str(parser.get_error(index).desc()) for index in range(parser.num_errors)]
        raise ValueError("TensorRT cannot read the model: " + ("; ".join(found) or "no reason given"))
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    for flag in builder_flags(settings["precision"], set(tensorrt.BuilderFlag.__members__)):
        config.set_flag(getattr(tensorrt.BuilderFlag, flag))
    if "tf32" not in settings["options"]:
        config.clear_flag(tensorrt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    described = [(tensor.name, declared(tensor.shape)) for tensor in tensors]
    for tensor, shape in zip(tensors, shapes_of(described, settings)):
        profile.set_shape(tensor.name, shape, shape, shape)
    if any(-1 in tuple(tensor.shape) for tensor in tensors):
        config.add_optimization_profile(profile)
    timings = cache_folder() / f"{key({'version': version(), 'gpu': cuda.gpu_identity()})}.timings"
    use_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise logger.error("TensorRT cannot build an engine of the model")
    learnt = config.get_timing_cache()
    if learnt is not None:
        write(timings, learnt.serialize())
    return bytes(plan)


def use_timings(config: Any, path: Path) -> None:
    """Give the builder the timings of earlier builds; where they do not fit, an empty cache."""
    for data in (path.read_bytes() if path.is_file() else b"", b""):
        with contextlib.suppress(Exception):
            timings = config.create_timing_cache(data)
            if timings is not None and config.set_timing_cache(timings, False):
                return
        with contextlib.suppress(OSError):
            path.unlink()


def declared(shape: Any) -> tuple[int | str, ...]:
    """A shape with ``?`` for open dimensions."""
    return tuple("?" if size < 0 else int(size) for size in shape)


class Model:
    """An engine with an execution context and a stream.

    Loading an ONNX file includes building its engine, unless that is in the cache: see ``warnings``.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        self._build_s, self._stream = 0.0, ctypes.c_void_p()
        self._precision = settings["precision"]
        cuda.gpu_identity()
        self._logger = make_logger()
        tensorrt.init_libnvinfer_plugins(self._logger, "")
        self._runtime = tensorrt.Runtime(self._logger)
        self._engine = self._load(path, settings)
        self.context = self._engine.create_execution_context()
        if self.context is None:
            raise self._logger.error("TensorRT cannot create an execution context")
        cuda.driver("cuStreamCreate", ctypes.byref(self._stream), 1)
        self._bind(settings)
        self._synchronise = cuda.DRIVER.cuStreamSynchronize
        self._handle = self._stream.value

    def _load(self, path: str, settings: dict[str, Any]) -> Any:
        if Path(path).suffix.lower() != ".onnx":
            return self._deserialise(Path(path).read_bytes())
        flags = builder_flags(settings["precision"], set(tensorrt.BuilderFlag.__members__))
        tf32 = "tf32" in settings["options"]
        shapes = settings.get("shapes", {})
        name = engine_key(Path(path).read_bytes(), flags, tf32, shapes, cuda.gpu_identity())
        cached = None if name is None else cache_folder() / f"{name}.engine"
        if cached is not None and cached.is_file():
            with contextlib.suppress(RuntimeError):  # damaged: it is built again
                return self._deserialise(cached.read_bytes())
        start = time.perf_counter()
        plan = build(path, settings, self._logger)
        self._build_s = time.perf_counter() - start
        if cached is not None:
            write(cached, plan)
        return self._deserialise(plan)

    def _deserialise(self, plan: bytes) -> Any:
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._logger.error("the engine cannot be loaded by this TensorRT on this GPU")
        return engine

    def _bind(self, settings: dict[str, Any]) -> None:
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT for name in names}
        self.described = [
            (name, declared(self._engine.get_tensor_shape(name))) for name in names if is_input[name]
        ]
        for (name, _), shape in zip(self.described, shapes_of(self.described, settings)):
            if not self.context.set_input_shape(name, shape):
                raise ValueError(f"input '{name}' of the engine cannot have the shape {shape}")
        self._inputs: list[cuda.Buffer] = []
        self._outputs: list[cuda.Buffer] = []
        for name in names:
            shape = tuple(self.context.get_tensor_shape(name))
            if -1 in shape:
                raise ValueError(f"the shape of output '{name}' depends on the values of the inputs")
            buffer = cuda.Buffer(shape, numpy.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(name))))
            (self._inputs if is_input[name] else self._outputs).append(buffer)
            self.context.set_tensor_address(name, buffer.address.value)
        self.inputs = [(buffer.array.shape, buffer.array.dtype.name) for buffer in self._inputs]

    def set_inputs(self, arrays: list[Any]) -> None:
        """Copy the arrays to the GPU."""
        for buffer, array in zip(self._inputs, arrays):
            buffer.array[...] = array
        self.copy_in()

    def run(self) -> None:
        """Enqueue one inference and wait until the GPU has done it."""
        if not self.context.execute_async_v3(self._handle) or self._synchronise(self._stream):
            raise self._logger.error("TensorRT could not run the model")

    def copy_in(self) -> None:
        """Copy the inputs from locked memory to the GPU, complete."""
        for buffer in self._inputs:
            buffer.upload()

    def copy_out(self) -> None:
        """Copy the outputs from the GPU to locked memory, complete."""
        for buffer in self._outputs:
            buffer.download()

    def outputs(self) -> list[Any]:
        """Copies of the last outputs."""
        self.copy_out()
        return [buffer.array.copy() for buffer in self._outputs]

    def layers(self) -> list[Any]:
        """What the engine inspector says of each layer: an object, or its name alone."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self.context
        text = inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON)
        return list(json.loads(text).get("Layers", []))

    def placement(self) -> list[dict[str, Any]]:
        """All layers run in the engine."""
        return [{"where": "tensorrt", "nodes": self._engine.num_layers, "partitions": 1}]

    def warnings(self) -> list[dict[str, str]]:
        """What should be known beside the times: code and detail of each."""
        return list(self._warnings())

    def _warnings(self) -> Iterator[dict[str, str]]:
        if self._build_s:
            detail = f"the load time includes {self._build_s:.1f} s of building the engine"
            yield {"code": "engine-built", "detail": detail}
        if lacks_precision(self.layers(), self._precision):
            yield {"code": "precision-unused", "detail": f"no layer of the engine uses {self._precision}"}

    def __del__(self) -> None:
        if self._stream.value:
            cuda.DRIVER.cuStreamSynchronize(self._stream)
            cuda.DRIVER.cuStreamDestroy_v2(self._stream)


def operations(
    path: str, settings: dict[str, Any], arrays: list[Any], count: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """Times of the layers over some inferences, and of the whole inferences in the same run."""

    class Profiler(tensorrt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IProfiler.__init__(self)
            self.samples_ns: dict[str, list[int]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.samples_ns.setdefault(layer_name, []).append(round(ms * 1e6))

    model = Model(path, settings)
    model.set_inputs(arrays)
    model.run()
    profiler = Profiler()
    model.context.profiler = profiler
    total_ns = []
    for _ in range(count):
        start = time.perf_counter_ns()
        model.run()
        total_ns.append(time.perf_counter_ns() - start)
    kinds = {
        layer.get("Name"): layer.get("LayerType", "") for layer in model.layers() if isinstance(layer, dict)
    }
    found = [
        {"name": name, "kind": kinds.get(name, ""), "where": "tensorrt", "samples_ns": samples_ns}
        for name, samples_ns in profiler.samples_ns.items()
    ]
    return found, total_ns
