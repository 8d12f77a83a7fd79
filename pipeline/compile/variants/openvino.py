"""Variants for OpenVINO on the CPU: as it comes in every precision of the processor, and int8 by NNCF.

OpenVINO compiles a model when it is loaded, in the precision of the target. So one file serves fp32, bf16 and
fp16; in int8 it is one with quantisers.

Source: OpenVINO 2026.4, pages "Precision Control" and "Quantized models compute and restrictions".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np

from devices.host import temporary_folder
from devices.installing import how_to_install
from devices.inventory import is_this_machine
from devices.target import Target
from pipeline.compile.child import call
from pipeline.compile.processors import computes_in
from pipeline.compile.variants.base import CompileTask, CompileVariant, ModelFormat
from pipeline.compile.variants.onnxruntime import PACKAGES, prepared_model, shared_folder
from pipeline.errors import ExportError
from pipeline.work.disk import write_atomically


def _as_it_comes(task: CompileTask, path: Path) -> Mapping[str, str]:
    write_atomically(path, task.model.read_bytes())
    return {"compiled": "by OpenVINO when it is loaded", "cpu": "any"}


@dataclass(frozen=True)
class NncfInt8:
    """Static quantisation by NNCF.

    Attributes:
        preset: ``performance`` for symmetric activations, ``mixed`` for asymmetric ones.
        fast_correction: see ``pipeline.compile.steps.openvino_int8.quantise``.
        share_in_float: of the operators, the most sensitive ones, that stay in fp32.
    """

    preset: str
    fast_correction: bool = True
    share_in_float: float = 0.0

    def __call__(self, task: CompileTask, path: Path) -> Mapping[str, str]:
        """Write the quantised model."""
        if util.find_spec("nncf") is None:
            raise ExportError(
                f"{task.model.name} cannot be quantised for {task.target}",
                why="the package nncf is not installed",
                fix=how_to_install("openvino"),
            )
        if not task.calibration:
            raise ExportError(
                f"{task.model.name} cannot be quantised",
                why="there are no calibration inputs",
                fix="give --data",
            )
        count = round(self.share_in_float * len(task.sensitive))
        in_float = task.sensitive[: max(1, count)] if self.share_in_float else ()
        with shared_folder(task) as shared, temporary_folder("compile") as folder:
            inputs, made = folder / "inputs.npz", folder / "made.onnx"
            np.savez(inputs, allow_pickle=False, **dict(task.calibration))
            call(
                "openvino_int8:quantise",
                what=f"NNCF cannot quantise {task.model.name}",
                model=str(prepared_model(task, shared)),
                path=str(made),
                inputs=str(inputs),
                preset=self.preset,
                in_float=in_float,
                fast_correction=self.fast_correction,
            )
            write_atomically(path, made.read_bytes())
        rows = min(len(each) for each in task.calibration.values())
        notes = {
            "nncf": metadata.version("nncf"),
            "activations": "symmetric" if self.preset == "performance" else "asymmetric",
            "weights": "s8 per channel",
            "calibration": f"over {rows} inputs",
            "bias_correction": "fast" if self.fast_correction else "accurate",
            "cpu": "any",
        }
        return {**notes, "in_float": " ".join(in_float)} if in_float else notes


def _needs(precision: str) -> Any:
    def unfit(target: Target) -> str:
        if not is_this_machine(target.device) or computes_in(precision):
            return ""
        return f"this processor does not compute in {precision}"

    return unfit


def _variant(precision: str, how: str, make: Any, packages: tuple[str, ...], **more: Any) -> CompileVariant:
    return CompileVariant("openvino", precision, how, ModelFormat.ONNX, ".onnx", make, packages, **more)


def _int8(how: str, make: NncfInt8, **more: Any) -> CompileVariant:
    return _variant("int8", how, make, ("nncf", *PACKAGES), calibrates=True, **more)


VARIANTS = (
    _variant("fp32", "", _as_it_comes, (), lossless=True),
    _variant("bf16", "", _as_it_comes, (), unfit=_needs("bf16")),
    _variant("fp16", "", _as_it_comes, (), unfit=_needs("fp16")),
    _int8("symmetric", NncfInt8("performance")),
    _int8("asymmetric", NncfInt8("mixed")),
    _int8("corrected", NncfInt8("mixed", fast_correction=False), instead_of="openvino:int8-asymmetric"),
    _int8(
        "mixed10",
        NncfInt8("mixed", share_in_float=0.1),
        from_sensitivity=True,
        instead_of="openvino:int8-asymmetric",
    ),
)
