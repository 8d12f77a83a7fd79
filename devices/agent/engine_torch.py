"""Engine of PyTorch: ``.pt2`` files, on the CPU or on an NVIDIA GPU.

A ``.pt2`` archive holds an exported program, which runs eagerly, one operation after the other, or a package
that AOTInductor compiled, which is a shared library; which of the two is read from the archive. Inputs are
kept on the device, so that ``run`` is one inference from input ready to output ready; on a GPU it waits for
the GPU.

Such a file is trusted like a program: a package is native code, and expressions in an exported program are
evaluated by sympy. It is loaded on the device only, in a process of its own. Pickled weights are read with
``weights_only``, and archives with other pickled objects are refused.

Sources: PyTorch 2.13, pages "torch.export", "torch.export PT2 archive specification" and "AOTInductor:
ahead-of-time compilation for torch.export-ed models" of its documentation.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # torch.export.load asks for less

import torch

from . import nvidia
from .inputs import shapes_of

COMPILED = "data/aotinductor/"
PICKLED = ("data/constants/custom_obj_", "data/constants/opaque_obj_")
INPUTS_KEY = "lathe_inputs"
"""Metadata of a package with the shape and dtype of each input, which AOTInductor itself does not keep."""


def version() -> str:
    """Version of PyTorch."""
    return str(torch.__version__)


def binaries() -> list[str]:
    """The native libraries of PyTorch."""
    return [str(path) for path in (Path(torch.__file__).parent / "lib").glob("lib*torch*.so")]


def check(settings: dict[str, Any]) -> None:
    """Refuse a GPU that PyTorch does not see.

    Raises:
        ValueError: with the reason.
    """
    if settings["delegate"] == "cuda" and not torch.cuda.is_available():
        why = (
            "sees no NVIDIA GPU; check the driver with nvidia-smi"
            if torch.version.cuda
            else "is built without CUDA; install a build of PyTorch for CUDA"
        )
        raise ValueError(f"this PyTorch {version()} {why}")


Inputs = List[Tuple[str, Tuple[Any, ...], Tuple[int, ...], Any]]


class Network:
    """Something callable with its inputs on the device.

    Args:
        call: takes the inputs, one tensor each, and returns a tensor or a nest of tensors.
        inputs: name, declared sizes, smallest sizes and dtype of each.
        parts: see ``placement``.
        settings: of the target.
    """

    def __init__(
        self,
        call: Callable[[list[Any]], Any],
        inputs: Inputs,
        parts: list[dict[str, Any]],
        settings: dict[str, Any],
    ) -> None:
        self._call = call
        self._dtypes = [dtype for _, _, _, dtype in inputs]
        self._parts = parts
        self._device = settings["delegate"]
        self.described = [(name, declared) for name, declared, _, _ in inputs]
        shapes = shapes_of(self.described, settings, [least for _, _, least, _ in inputs])
        self.inputs = list(zip(shapes, map(_numpy_name, self._dtypes)))
        self._sources: list[Any] = []
        self._tensors: list[Any] = []
        self._result: Any = None
        if self._device == "cuda":
            self.copy_in, self.copy_out = self._copy_in, self._copy_out

    def set_inputs(self, arrays: list[Any]) -> None:
        """Copy the arrays into tensors on the device."""
        self._sources = [torch.tensor(array).to(dtype) for array, dtype in zip(arrays, self._dtypes)]
        self._tensors = [source.to(self._device, copy=True) for source in self._sources]

    def run(self) -> None:
        """One inference on the inputs that were set, complete on return."""
        with torch.inference_mode():
            self._result = self._call(self._tensors)
        if self._device == "cuda":
            torch.cuda.synchronize()

    def outputs(self) -> list[Any]:
        """Copies of the last outputs; bfloat16, which numpy lacks, as float32."""
        return [
            (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy().copy()
            for tensor in _tensors_in(self._result)
        ]

    def placement(self) -> list[dict[str, Any]] | None:
        """Operations on each device; those of a compiled package count as one."""
        return self._parts

    def _copy_in(self) -> None:
        for tensor, source in zip(self._tensors, self._sources):
            tensor.copy_(source)
        torch.cuda.synchronize()

    def _copy_out(self) -> None:
        for tensor in _tensors_in(self._result):
            tensor.cpu()


class Model(Network):
    """A loaded exported program or package.

    Raises:
        ValueError: the file is neither, is for another device, or there is no GPU.
        RuntimeError: PyTorch cannot load it.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        check(settings)
        torch.set_num_threads(settings["threads"])
        load = _load_package if is_compiled(path) else _load_program
        super().__init__(*load(path, settings), settings)


def is_compiled(path: str) -> bool:
    """Whether an archive holds a compiled package, as against an exported program.

    Raises:
        ValueError: it holds neither.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"the file is not a .pt2 archive: {error}") from error
    if any(name.startswith(COMPILED) for name in names):
        return True
    if any(name.startswith(PICKLED) for name in names):
        raise ValueError("the archive holds pickled objects besides tensors, which are not loaded")
    if any(name.startswith("models/") for name in names) or "serialized_exported_program.json" in names:
        return False
    raise ValueError("the archive holds neither an exported program nor an AOTInductor package")


def operations(
    path: str, settings: dict[str, Any], arrays: list[Any], count: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """Time of each operation of an exported program by PyTorch's profiler.

    On a GPU it is the time of the kernels that the operation starts, on the CPU that of the operation itself.

    Raises:
        NotImplementedError: the file is a compiled package, whose operations the profiler does not see.
    """
    if is_compiled(path):
        raise NotImplementedError(
            "an AOTInductor package does not tell its operations apart; profile the exported program instead"
        )
    model = Model(path, settings)
    model.set_inputs(arrays)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if settings["delegate"] == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(1 + count):  # the first one pays for the start of the profiler
            with torch.profiler.record_function(INFERENCE):
                model.run()
    inferences = [
        event for event in profile.events() if event.name == INFERENCE and event.device_type.name == "CPU"
    ][1:]
    found: list[dict[str, Any]] = []
    for inference in inferences:
        events = [event for event in inference.cpu_children if event.name.startswith("aten::")]
        if not found:
            found = [
                {
                    "name": f"{event.name[len('aten::') :]}_{index}",
                    "kind": event.name,
                    "where": settings["delegate"],
                    "samples_ns": [],
                }
                for index, event in enumerate(events)
            ]
        if [event.name for event in events] != [entry["kind"] for entry in found]:
            raise RuntimeError("the model does not execute the same operations each time")
        for entry, event in zip(found, events):
            time_us = event.device_time_total if entry["where"] == "cuda" else event.cpu_time_total
            entry["samples_ns"].append(int(time_us * 1000))
    return found, [int(inference.cpu_time_total * 1000) for inference in inferences]


INFERENCE = "lathe::inference"
"""Marks a whole inference in a profile."""


def canary(settings: dict[str, Any]) -> Network:
    """A small fixed network: three convolutions."""
    check(settings)
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)]
    module = torch.nn.Sequential(*layers).eval().to(settings["delegate"])
    parts = [{"where": settings["delegate"], "nodes": len(layers), "partitions": 1}]
    inputs: Inputs = [("x", (1, 16, 32, 32), (1, 16, 32, 32), torch.float32)]
    return Network(lambda tensors: module(*tensors), inputs, parts, settings)


def accelerator(settings: dict[str, Any]) -> str:
    """Name and driver of the GPU; empty on the CPU."""
    if settings["delegate"] != "cuda":
        return ""
    found = nvidia.smi(_gpu(), "driver_version")
    return f"{torch.cuda.get_device_name()}, driver {found[0] if found else 'unknown'}"


def accelerator_conditions(settings: dict[str, Any]) -> dict[str, Any]:
    """Clock, temperature and what holds the clock of the GPU down."""
    return nvidia.conditions(_gpu()) if settings["delegate"] == "cuda" else {}


Loaded = Tuple[Callable[[List[Any]], Any], Inputs, List[Dict[str, Any]]]


def _load_program(path: str, settings: dict[str, Any]) -> Loaded:
    """An exported program, moved to the device; open dimensions take their smallest size."""
    program = _exported(path)
    if settings["delegate"] == "cuda":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, "cuda")
    module = program.module()
    names = program.graph_signature.user_inputs
    inputs = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            value = node.meta["val"]
            if not isinstance(value, torch.Tensor):
                raise ValueError(f"input '{node.name}' is {value!r}, not a tensor, which is not measurable")
            least = tuple(_smallest(size, program.range_constraints) for size in value.shape)
            declared = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
            inputs.append((node.name, declared, least, value.dtype))
    spec = program.call_spec.in_spec

    def call(tensors: list[Any]) -> Any:
        arguments, named = torch.utils._pytree.tree_unflatten(tensors, spec)
        return module(*arguments, **named)

    devices = [
        next((tensor.device.type for tensor in _tensors_in(node.meta.get("val"))), settings["delegate"])
        for node in program.graph.nodes
        if node.op == "call_function"
    ]
    parts = [
        {"where": device, "nodes": devices.count(device), "partitions": _stretches(devices, device)}
        for device in sorted(set(devices))
    ]
    return call, inputs, parts


class _Errors(logging.Handler):
    """Keeps the errors that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the error of a record."""
        if record.exc_info and record.exc_info[1] is not None:
            self.errors.append(record.exc_info[1])


def _exported(path: str) -> Any:
    """Load an exported program; PyTorch logs why it cannot, and raises something less telling."""
    logger, kept = logging.getLogger("torch.export"), _Errors()
    logger.addHandler(kept)
    try:
        return torch.export.load(path)
    except RuntimeError as error:
        cause = kept.errors[-1] if kept.errors else error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise RuntimeError(str(cause)) from error
    finally:
        logger.removeHandler(kept)


def _load_package(path: str, settings: dict[str, Any]) -> Loaded:
    """A package that AOTInductor compiled."""
    package = torch._inductor.aoti_load_package(path)
    metadata = package.loader.get_metadata()
    device = metadata.get("AOTI_DEVICE_KEY", "cpu")
    if device != settings["delegate"]:
        option = "with" if device == "cuda" else "without"
        raise ValueError(f"the package is compiled for {device}; write the target {option} '+cuda'")
    if INPUTS_KEY not in metadata:
        raise ValueError(
            "the package does not say what inputs it takes; compile it with inductor_configs="
            f'{{"aot_inductor.metadata": {{"{INPUTS_KEY}": \'[[[1, 3, 224, 224], "float32"]]\'}}}}'
        )
    threads = _compiled_threads(path) - {settings["threads"]}
    if threads:
        raise ValueError(
            f"the package is compiled for {threads.pop()} threads; write that after '@', or compile it with "
            'inductor_configs={"cpp.dynamic_threads": True}'
        )
    inputs = []
    for index, (shape, name) in enumerate(json.loads(metadata[INPUTS_KEY])):
        dtype = getattr(torch, name, None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"the package names '{name}' for the type of an input")
        inputs.append((f"input_{index}", tuple(shape), tuple(shape), dtype))
    return package.loader.run, inputs, [{"where": device, "nodes": 1, "partitions": 1}]


def _compiled_threads(path: str) -> set[int]:
    """The numbers of OpenMP threads that are written into a package's code."""
    with zipfile.ZipFile(path) as archive:
        return {
            int(number)
            for name in archive.namelist()
            if name.endswith(".cpp")
            for number in re.findall(rb"num_threads\((\d+)\)", archive.read(name))
        }


def _smallest(size: Any, ranges: Any) -> int:
    """A dimension's size, or the smallest that an open one may have."""
    if isinstance(size, int):
        return size
    bounds = ranges.get(size.node.expr)
    return max(1, int(bounds.lower)) if bounds is not None else 1


def _stretches(devices: list[str], device: str) -> int:
    """How many stretches of operations, in order of execution, are on a device."""
    return sum(
        here == device and (index == 0 or devices[index - 1] != device) for index, here in enumerate(devices)
    )


def _tensors_in(value: Any) -> list[Any]:
    """The tensors in a nest of tuples, lists and dictionaries, in order."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _numpy_name(dtype: Any) -> str:
    """The numpy type that an input is given in; numpy lacks bfloat16."""
    return "float32" if dtype == torch.bfloat16 else str(dtype)[len("torch.") :]


def _gpu() -> str:
    """The GPU in use, as the driver's tool knows it; PyTorch numbers those that it may see."""
    uuid = getattr(torch.cuda.get_device_properties(0), "uuid", None)
    return nvidia.FIRST if uuid is None else f"GPU-{uuid}"
