"""Variants for ONNX Runtime: as it comes, optimised ahead of time, cleaned, fp16, and int8 of every kind.

Which int8 is fast depends on the processor: with VNNI unsigned activations and signed weights, on Arm signed
ones, so all that the runtime takes are tried. Ranges of activations by another method than the smallest and
largest value change constants only, hence no latency: they are tried where these lose too much accuracy.

Sources: pages "Graph Optimizations" and "Quantize ONNX Models" of ONNX Runtime's documentation.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

import numpy as np

from devices.digests import value_digest
from devices.host import temporary_folder
from devices.installing import how_to_install
from devices.inventory import HOST, is_this_machine, runtime_of, uses_accelerator
from devices.target import Target
from pipeline.compile.child import call
from pipeline.compile.processors import has_dot_products, processor_name
from pipeline.compile.variants.base import CompileTask, CompileVariant, ModelFormat, not_on_accelerators
from pipeline.errors import ExportError
from pipeline.work.disk import write_atomically
from pipeline.work.stage import installed

PACKAGES = ("onnxruntime", "onnx")
_SENSITIVITY_INPUTS = 16

Integer = Literal["s8", "u8"]
_TYPES: Mapping[str, str] = {"s8": "QInt8", "u8": "QUInt8"}
_METHODS: Mapping[str, str] = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


def _as_it_comes(task: CompileTask, path: Path) -> Mapping[str, str]:
    write_atomically(path, task.model.read_bytes())
    return {"graph_optimization": "none", "cpu": "any"}


def _optimised(task: CompileTask, path: Path) -> Mapping[str, str]:
    """The graph optimised ahead of time, so that the device need not do it.

    At level ``all`` the saved graph may hold operators that suit this CPU alone (the NCHWc layout, whose
    block follows the vector width), so only where this machine runs it by the package that compiles it. At
    level ``extended`` any CPU with the same runtime runs it. Level ``basic`` leaves operators of the ONNX
    standard alone: an execution provider that does not know the fused ones would leave them to the CPU.
    """
    level = _level(task.target)
    _run("onnx_graphs:optimise", task, path, level=level, threads=task.target.threads)
    cpu = processor_name() if level == "all" else "any"
    return {"onnxruntime": metadata.version("onnxruntime"), "graph_optimization": level, "cpu": cpu}


def _level(target: Target) -> str:
    if uses_accelerator(target):
        return "basic"
    here = target.device == HOST.name and runtime_of(target).needs_python
    return "all" if here else "extended"


def _cleaned(task: CompileTask, path: Path) -> Mapping[str, str]:
    _run("onnx_graphs:slim", task, path)
    return {"onnxslim": metadata.version("onnxslim"), "cpu": "any"}


def half(task: CompileTask, path: Path) -> Mapping[str, str]:
    """Write the model in fp16, with inputs and outputs in fp32.

    Raises:
        ExportError: the model cannot be converted, or a package is missing.
    """
    _run("onnx_graphs:to_half", task, path)
    return {"weights": "fp16", "cpu": "any"}


@dataclass(frozen=True)
class StaticInt8:
    """Static quantisation with ranges from calibration inputs.

    Attributes:
        activations: signed or unsigned.
        weights: likewise.
        method: by which ranges are found: ``minmax``, ``entropy`` or ``percentile``.
        symmetric: the ranges of activations are made symmetric.
        reduce_range: weights of 7 bits, for processors whose 8-bit products saturate.
        share_in_float: of the operators, the most sensitive ones, that stay in fp32.
        biases_in_float: biases stay in fp32, as against 32-bit integers.
    """

    activations: Integer
    weights: Integer
    method: str = "minmax"
    symmetric: bool = False
    reduce_range: bool = False
    share_in_float: float = 0.0
    biases_in_float: bool = False

    def __call__(self, task: CompileTask, path: Path) -> Mapping[str, str]:
        """Write the quantised model."""
        count = round(self.share_in_float * len(task.sensitive))
        in_float = task.sensitive[: max(1, count)] if self.share_in_float else ()
        with shared_folder(task) as folder:
            prepared = prepared_model(task, folder)
            quantise(
                prepared,
                path,
                ranges(task, folder, _METHODS[self.method]),
                method=_METHODS[self.method],
                activations=_TYPES[self.activations],
                weights=_TYPES[self.weights],
                symmetric=self.symmetric,
                reduce_range=self.reduce_range,
                in_float=in_float,
                biases_in_float=self.biases_in_float,
            )
        rows = min(len(each) for each in task.calibration.values())
        notes = {
            "onnxruntime": metadata.version("onnxruntime"),
            "activations": self.activations,
            "weights": f"{self.weights} per channel",
            "calibration": f"{self.method} over {rows} inputs",
            "cpu": "any",
        }
        return {**notes, "in_float": " ".join(in_float)} if in_float else notes


def quantise(prepared: Path, path: Path, ranges: Path, **settings: Any) -> None:
    """Quantise a prepared model; ``settings`` as ``pipeline.compile.steps.onnx_int8.quantise_static`` has.

    Raises:
        ExportError: the quantiser refuses the model.
    """
    with temporary_folder("compile") as folder:
        made = folder / "quantised.onnx"
        call(
            "onnx_int8:quantise_static",
            what=f"ONNX Runtime cannot quantise {prepared.name}",
            model=str(prepared),
            path=str(made),
            ranges=str(ranges),
            **settings,
        )
        write_atomically(path, made.read_bytes())


@contextlib.contextmanager
def shared_folder(task: CompileTask) -> Iterator[Path]:
    """Where variants of one model and calibration share files, which belong to the installed versions."""
    if task.shared is None:
        with temporary_folder("compile") as folder:
            yield folder
        return
    folder = task.shared / f"onnx-{value_digest(installed(PACKAGES))[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def prepared_model(task: CompileTask, folder: Path) -> Path:
    """The model as quantisers want it, whose operators have the names that ``sensitive`` uses.

    Raises:
        ExportError: ONNX Runtime refuses the model.
    """
    path = folder / "prepared.onnx"
    if not path.exists():
        _run("onnx_int8:prepare", task, path)
    return path


def ranges(task: CompileTask, folder: Path, method: str) -> Path:
    """The ranges of all activations over the calibration inputs.

    Raises:
        ExportError: there are no calibration inputs, or the model does not take them.
    """
    path = folder / f"ranges-{method}.json"
    if path.exists():
        return path
    if not task.calibration:
        raise ExportError(
            f"{task.model.name} cannot be quantised", why="there are no calibration inputs", fix="give --data"
        )
    prepared = prepared_model(task, folder)
    with temporary_folder("compile") as temporary:
        inputs, found = temporary / "inputs.npz", temporary / "ranges.json"
        np.savez(inputs, allow_pickle=False, **dict(task.calibration))
        call(
            "onnx_int8:find_ranges",
            what=f"ONNX Runtime cannot calibrate {task.model.name}",
            model=str(prepared),
            inputs=str(inputs),
            method=method,
            path=str(found),
        )
        write_atomically(path, found.read_bytes())
    return path


def _dynamic(task: CompileTask, path: Path) -> Mapping[str, str]:
    with shared_folder(task) as folder:
        prepared = prepared_model(task, folder)
        _run("onnx_int8:quantise_dynamic", task, path, prepared, weights="QUInt8")
    return {"onnxruntime": metadata.version("onnxruntime"), "activations": "quantised as they come"}


def _weights_only(task: CompileTask, path: Path) -> Mapping[str, str]:
    with shared_folder(task) as folder:
        _run("onnx_int8:store_weights_in_int8", task, path, prepared_model(task, folder))
    return {"weights": "s8 per channel", "activations": "fp32"}


def _run(step: str, task: CompileTask, path: Path, model: Path | None = None, **arguments: Any) -> None:
    for package in PACKAGES:
        if util.find_spec(package) is None:
            raise ExportError(
                f"{task.model.name} cannot be compiled for {task.target}",
                why=f"the package {package} is not installed",
                fix=how_to_install("onnxruntime"),
            )
    with temporary_folder("compile") as folder:
        made = folder / "made.onnx"
        call(
            step,
            what=f"ONNX Runtime cannot compile {task.model.name}",
            fix="check that the file is a whole ONNX model whose operators the runtime has",
            model=str(model or task.model),
            path=str(made),
            **arguments,
        )
        write_atomically(path, made.read_bytes())


def _needs_half(target: Target) -> str:
    if uses_accelerator(target):
        return ""
    return "ONNX Runtime's CPU kernels compute in fp32: an fp16 model only gets conversions"


def _needs_saturating(target: Target) -> str:
    if unfit := not_on_accelerators(target):
        return unfit
    if is_this_machine(target.device) and (
        has_dot_products() or platform.machine() not in ("x86_64", "AMD64")
    ):
        return "this processor's 8-bit products do not saturate"
    return ""


def _variant(
    precision: str,
    how: str,
    make: Callable[[CompileTask, Path], Mapping[str, str]],
    packages: tuple[str, ...] = PACKAGES,
    **more: Any,
) -> CompileVariant:
    return CompileVariant("onnxruntime", precision, how, ModelFormat.ONNX, ".onnx", make, packages, **more)


def _static(how: str, make: StaticInt8, **more: Any) -> CompileVariant:
    more = {"unfit": not_on_accelerators, **more}
    return _variant("int8", how, make, calibrates=True, **more)


_SIGNS: tuple[tuple[Integer, Integer], ...] = (("u8", "s8"), ("u8", "u8"), ("s8", "s8"))

AS_IT_COMES = _variant("fp32", "", _as_it_comes, (), lossless=True)
OPTIMISED = _variant("fp32", "optimised", _optimised, lossless=True, like=AS_IT_COMES.name)

VARIANTS = (
    OPTIMISED,
    AS_IT_COMES,
    _variant("fp32", "cleaned", _cleaned, ("onnxslim", "onnx"), lossless=True, like=AS_IT_COMES.name),
    *(_static(f"{a}{w}-minmax", StaticInt8(a, w)) for a, w in _SIGNS),
    *(
        _static(f"{a}{w}-{method}", StaticInt8(a, w, method), instead_of=f"onnxruntime:int8-{a}{w}-minmax")
        for a, w in _SIGNS
        for method in ("entropy", "percentile")
    ),
    _static(
        "u8s8-symmetric", StaticInt8("u8", "s8", symmetric=True), instead_of="onnxruntime:int8-u8s8-minmax"
    ),
    _static("s8s8-symmetric", StaticInt8("s8", "s8", symmetric=True)),
    _static("u8s8-reduced", StaticInt8("u8", "s8", reduce_range=True), unfit=_needs_saturating),
    *(
        _static(
            f"{a}{w}-mixed{percent}",
            StaticInt8(a, w, share_in_float=percent / 100),
            from_sensitivity=True,
            instead_of=f"onnxruntime:int8-{a}{w}-minmax",
        )
        for a, w in _SIGNS
        for percent in (10, 30)
    ),
    _variant("int8", "dynamic", _dynamic, unfit=not_on_accelerators),
    # It computes in fp32.
    _variant("int8", "weights", _weights_only, unfit=not_on_accelerators, like=AS_IT_COMES.name),
    _variant("fp16", "", half, unfit=_needs_half),
)


def find_sensitive(task: CompileTask) -> list[tuple[str, str, float]]:
    """Every operator that can be quantised, with its kind and the ratio of signal to noise if it alone is.

    Raises:
        ExportError: the model cannot be quantised.
    """
    with shared_folder(task) as folder, temporary_folder("compile") as temporary:
        inputs = temporary / "inputs.npz"
        few = {name: each[:_SENSITIVITY_INPUTS] for name, each in task.calibration.items()}
        np.savez(inputs, allow_pickle=False, **few)
        found = call(
            "onnx_int8:sensitivity",
            what=f"ONNX Runtime cannot quantise {task.model.name}",
            model=str(prepared_model(task, folder)),
            ranges=str(ranges(task, folder, "MinMax")),
            inputs=str(inputs),
        )
    return [(str(name), str(kind), float(ratio)) for name, kind, ratio in found]
