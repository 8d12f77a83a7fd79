"""Variants for TensorRT, which builds an ONNX model into an engine on the target when it is loaded.

Engines belong to one GPU and one version, so the file that ships is the model. Up to TensorRT 10 the
precision of the target permits layers to be computed in it; from 11 on the types come from the model alone,
which has to be in fp16 itself. Quantised models have signed, symmetric integers and biases in float, which is
all that TensorRT's parser takes.

Written from the documentation of TensorRT 10 and 11, pages "Working with Quantized Types" and "Strong Typing
vs Weak Typing", and of ONNX Runtime's quantiser; nobody has run it on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.compile.variants.base import CompileTask, CompileVariant, ModelFormat
from pipeline.compile.variants.onnxruntime import PACKAGES, StaticInt8, half
from pipeline.work.disk import write_atomically


def _as_it_comes(task: CompileTask, path: Path) -> Mapping[str, str]:
    write_atomically(path, task.model.read_bytes())
    return {"engine": "built on the target"}


def _variant(precision: str, how: str, make: Any, packages: tuple[str, ...], **more: Any) -> CompileVariant:
    return CompileVariant("tensorrt", precision, how, ModelFormat.ONNX, ".onnx", make, packages, **more)


def _int8(method: str, **more: Any) -> CompileVariant:
    make = StaticInt8("s8", "s8", method, symmetric=True, biases_in_float=True)
    return _variant("int8", method, make, PACKAGES, calibrates=True, **more)


VARIANTS = (
    _variant("fp32", "", _as_it_comes, (), lossless=True),
    _variant("fp16", "", _as_it_comes, ()),
    _variant("fp16", "converted", half, PACKAGES),
    _variant("bf16", "", _as_it_comes, ()),
    _int8("minmax"),
    _int8("entropy", instead_of="tensorrt:int8-minmax"),
    _int8("percentile", instead_of="tensorrt:int8-minmax"),
)
