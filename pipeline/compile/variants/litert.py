"""Variants for LiteRT: tidied, as it comes, and quantised by ai-edge-quantizer.

A model with channel-last input is already in the form that the runtime loads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from devices.host import temporary_folder
from devices.installing import how_to_install
from devices.target import Target
from pipeline.compile.child import call
from pipeline.compile.variants.base import CompileTask, CompileVariant, ModelFormat
from pipeline.errors import ExportError
from pipeline.export import flatbuffer
from pipeline.export.base import INPUT_NAME, OUTPUT_NAME
from pipeline.work.disk import write_atomically

PACKAGES = ("flatbuffers", "ai-edge-litert", "ai-edge-quantizer")
_SENSITIVITY_INPUTS = 16
# TensorType.FLOAT32 of the schema.
_FLOAT32 = 0


def _as_it_comes(task: CompileTask, path: Path) -> Mapping[str, str]:
    write_atomically(path, task.model.read_bytes())
    return {"layout": "NHWC"}


def _tidied(task: CompileTask, path: Path) -> Mapping[str, str]:
    content, schema = tidied(task.model)
    write_atomically(path, content)
    return {"layout": "NHWC", "schema": schema}


def tidied(exported: Path) -> tuple[bytes, str]:
    """The graph alone, without metadata and without what no operator uses, and its schema's name.

    Its only input is called ``input``, several ``input_00``, ``input_01`` and so on; outputs likewise.

    Raises:
        ExportError: not a LiteRT model of one graph with float32 inputs and outputs.
    """
    model = flatbuffer.read(exported.read_bytes())
    if len(model.subgraphs) != 1:
        raise ExportError(f"{exported.name} cannot be compiled", why="it has several subgraphs")
    graph = model.subgraphs[0]
    for what, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        found = [([int(size) for size in graph.tensors[n].shape], graph.tensors[n].type) for n in tensors]
        if not found or {type_code for _, type_code in found} != {_FLOAT32}:
            raise ExportError(
                f"the {what} of {exported.name} are not float32 tensors",
                why=f"found (shape, type code): {found}",
                fix="give the model in float32",
            )
    inputs, outputs = _named(graph.inputs, INPUT_NAME), _named(graph.outputs, OUTPUT_NAME)
    return flatbuffer.write(flatbuffer.cut(model, inputs, outputs)), f"TFL{model.version}"


def _named(tensors: Sequence[int], name: str) -> dict[int, str]:
    """Names by tensor, whose alphabetical order is that of the tensors."""
    if len(tensors) == 1:
        return {int(tensors[0]): name}
    return {int(each): f"{name}_{number:02}" for number, each in enumerate(tensors)}


def quantised(
    recipe: str, *, share_in_float: float = 0.0, **notes: str
) -> Callable[[CompileTask, Path], Mapping[str, str]]:
    """A ``make`` by a recipe of ``pipeline.compile.steps.litert_models``.

    Args:
        recipe: its name.
        share_in_float: of the operators with weights, the most sensitive ones, that stay in fp32.
        notes: on the result.
    """

    def make(task: CompileTask, path: Path) -> Mapping[str, str]:
        static = recipe == "static"
        count = round(share_in_float * len(task.sensitive))
        in_float = task.sensitive[: max(1, count)] if share_in_float else ()
        with temporary_folder("compile") as folder:
            source, made, inputs = folder / "tidied.tflite", folder / "made.tflite", folder / "inputs.npz"
            source.write_bytes(tidied(task.model)[0])
            if static:
                _save_inputs(task, inputs)
            call(
                "litert_models:quantise",
                what=f"ai-edge-quantizer cannot quantise {task.model.name}",
                fix=how_to_install("litert") + ", or leave int8 to another runtime",
                model=str(source),
                path=str(made),
                recipe=recipe,
                inputs=str(inputs) if static else None,
                in_float=in_float,
            )
            write_atomically(path, made.read_bytes())
        rows = min((len(each) for each in task.calibration.values()), default=0)
        told = {"calibration": f"minmax over {rows} inputs"} if static else {}
        told |= {"in_float": " ".join(in_float)} if in_float else {}
        return {"layout": "NHWC", "quantiser": _quantiser(), **notes, **told}

    return make


def find_sensitive(task: CompileTask) -> list[tuple[str, str, float]]:
    """Every operator with weights, with its kind and the ratio of signal to noise if it alone is in int8.

    Its name is that of its output in the tidied model.

    Raises:
        ExportError: the model cannot be quantised.
    """
    with temporary_folder("compile") as folder:
        source, inputs = folder / "tidied.tflite", folder / "inputs.npz"
        source.write_bytes(tidied(task.model)[0])
        _save_inputs(task, inputs)
        found = call(
            "litert_models:sensitivity",
            what=f"ai-edge-quantizer cannot quantise {task.model.name}",
            model=str(source),
            inputs=str(inputs),
            few=_SENSITIVITY_INPUTS,
        )
    return [(str(name), str(kind), float(ratio)) for name, kind, ratio in found]


def _save_inputs(task: CompileTask, path: Path) -> None:
    """The calibration inputs by their names in the tidied model."""
    names = _named(range(len(task.calibration)), INPUT_NAME).values()
    arrays = dict(zip(names, task.calibration.values(), strict=True))
    np.savez(path, allow_pickle=False, **arrays)


def _quantiser() -> str:
    return f"ai-edge-quantizer {metadata.version('ai-edge-quantizer')}"


def _not_for_npus(target: Target) -> str:
    return "an NPU runs only what was compiled for it" if "npu" in target.settings else ""


def _needs_cpu(target: Target) -> str:
    if "gpu" in target.settings:
        return "the GPU accelerator computes int8 models in float"
    return _not_for_npus(target)


def _variant(
    precision: str, how: str, make: Callable[[CompileTask, Path], Mapping[str, str]], **more: Any
) -> CompileVariant:
    more = {"packages": PACKAGES, "unfit": _not_for_npus, **more}
    return CompileVariant("litert", precision, how, ModelFormat.LITERT, ".tflite", make, **more)


def _in_float(precision: str, make: Callable[[CompileTask, Path], Mapping[str, str]]) -> CompileVariant:
    """Of weights that are stored in fewer bits; it computes in fp32."""
    return _variant(precision, "weights", make, like=AS_IT_COMES.name)


AS_IT_COMES = _variant("fp32", "", _as_it_comes, packages=(), lossless=True)
_TIDIES = ("flatbuffers", "ai-edge-litert")
TIDIED = _variant("fp32", "tidied", _tidied, packages=_TIDIES, lossless=True, like=AS_IT_COMES.name)

VARIANTS = (
    TIDIED,
    AS_IT_COMES,
    _variant(
        "int8",
        "static",
        quantised("static", activations="s8", weights="s8 per channel"),
        calibrates=True,
        unfit=_needs_cpu,
    ),
    *(
        _variant(
            "int8",
            f"mixed{percent}",
            quantised("static", share_in_float=percent / 100, activations="s8", weights="s8 per channel"),
            calibrates=True,
            from_sensitivity=True,
            instead_of="litert:int8-static",
            unfit=_needs_cpu,
        )
        for percent in (10, 30)
    ),
    _variant(
        "int8",
        "dynamic",
        quantised("dynamic", activations="quantised as they come", weights="s8 per channel"),
        unfit=_needs_cpu,
    ),
    _in_float("int8", quantised("weights", weights="s8 per channel", activations="fp32")),
    _in_float("fp16", quantised("half", weights="fp16", activations="fp32")),
)
