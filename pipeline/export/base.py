"""Artifact formats, and the identity of what is exported. Imports neither torch nor an exporter."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from importlib import metadata
from typing import Literal

from devices.digests import value_digest
from devices.errors import TargetError
from devices.target import Target
from latency_db.keys import Workload
from pipeline.errors import ExportError
from pipeline.spaces.base import Architecture, Block

# Raised by one when this package writes another graph for the same module and the same exporter.
_CONVENTION = 1

Layout = Literal["NCHW", "NHWC"]

INPUT_NAME = "input"
OUTPUT_NAME = "logits"


class Format(StrEnum):
    """A file format that a runtime loads."""

    ONNX = "onnx"
    LITERT = "litert"

    @property
    def suffix(self) -> str:
        """File suffix with its dot."""
        return ".onnx" if self is Format.ONNX else ".tflite"

    @property
    def layout(self) -> Layout:
        """Order of the axes of four-dimensional inputs and outputs: ``NCHW`` or ``NHWC``."""
        return "NCHW" if self is Format.ONNX else "NHWC"

    @property
    def extra(self) -> str:
        """The extra of the distribution that installs the exporter."""
        return "onnxruntime" if self is Format.ONNX else "litert"

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that decide the exported graph."""
        if self is Format.ONNX:
            return ("torch", "onnxscript", "onnx")
        return ("torch", "litert-torch", "litert-converter")


_FORMATS = {"onnxruntime": Format.ONNX, "litert": Format.LITERT}


def format_of(target: Target) -> Format:
    """The format that the target's runtime loads.

    Raises:
        TargetError: nothing is exported for this runtime.
    """
    if target.runtime not in _FORMATS:
        raise TargetError(
            f"nothing can be exported for target '{target}'",
            why=f"models are exported for {', '.join(_FORMATS)}, not for {target.runtime}",
            fix=f"write {target.device}/onnxruntime:fp32@{target.threads}",
        )
    if target.precision != "fp32":
        raise TargetError(
            f"nothing can be exported for target '{target}'",
            why="models are exported in fp32; other precisions can be measured by 'lathe profile'",
            fix=f"write {target.device}/{target.runtime}:fp32@{target.threads}",
        )
    return _FORMATS[target.runtime]


def exporter_versions(fmt: Format) -> dict[str, str]:
    """Versions of the packages that decide the exported graph; a build suffix (``+cpu``) is left out.

    Raises:
        ExportError: one of them is not installed.
    """
    try:
        return {package: metadata.version(package).partition("+")[0] for package in fmt.packages}
    except metadata.PackageNotFoundError as error:
        raise ExportError(
            f"the exporter for {fmt} is not installed",
            why=f"the package {error.name} is missing",
            fix=f'pip install "lathe-deploy[{fmt.extra}]"',
        ) from None


def block_workload(block: Block, fmt: Format) -> Workload:
    """The workload of one block exported to ``fmt``; equal blocks of different spaces share it.

    Raises:
        ExportError: the exporter is not installed.
    """
    content = {
        "kind": block.kind,
        "input_shape": list(block.input_shape),
        "arguments": [list(pair) for pair in block.arguments],
        **exporter_identity(fmt),
    }
    return Workload.of("block", str(block), content)


def network_workload(
    space_description: Mapping[str, object], architecture: Architecture, fmt: Format
) -> Workload:
    """The workload of a whole network of a space exported to ``fmt``.

    Raises:
        ExportError: the exporter is not installed.
    """
    content = {
        "space": value_digest(dict(space_description)),
        "architecture": [list(pair) for pair in architecture.choices],
        **exporter_identity(fmt),
    }
    return Workload.of("network", str(architecture), content)


def exporter_identity(fmt: Format) -> dict[str, object]:
    """What decides an exported graph besides the module itself, as JSON; part of every workload's identity.

    Raises:
        ExportError: the exporter is not installed.
    """
    return {"format": fmt.value, "convention": _CONVENTION, "exporter": exporter_versions(fmt)}
