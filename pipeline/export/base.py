"""Artifact formats, and the identity of what is exported. Imports neither torch nor an exporter."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from importlib import metadata
from typing import TYPE_CHECKING, Literal, Self

from devices.digests import value_digest
from devices.errors import TargetError
from devices.installing import how_to_install
from devices.target import Target
from devices.words import listed
from pipeline.errors import ExportError
from pipeline.spaces.base import Architecture, Block

if TYPE_CHECKING:
    from latency_db.store import Workload

# Raised by one when this package writes another graph for the same module and the same exporter.
_CONVENTION = 1
# Likewise for the same graph in fp32 and the same quantiser.
_QUANTISATION = 1

Layout = Literal["NCHW", "NHWC"]

INPUT_NAME = "input"
OUTPUT_NAME = "logits"


class Format(StrEnum):
    """What is exported: the file format of a runtime, in one precision.

    Attributes:
        runtime: the runtime that loads it, which is also the extra that installs its exporter.
        precision: as in a target.
    """

    ONNX = "onnx", "onnxruntime", "fp32"
    LITERT = "litert", "litert", "fp32"
    ONNX_INT8 = "onnx-int8", "onnxruntime", "int8"
    LITERT_INT8 = "litert-int8", "litert", "int8"

    runtime: str
    precision: str

    def __new__(cls, name: str, runtime: str, precision: str) -> Self:
        """A member whose text and value are its name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.runtime = runtime
        member.precision = precision
        return member

    @property
    def suffix(self) -> str:
        """File suffix with its dot."""
        return ".onnx" if self.runtime == "onnxruntime" else ".tflite"

    @property
    def in_float(self) -> Format:
        """What the same runtime loads in fp32: so a student is exported, and compiled from that."""
        return next(each for each in Format if each.runtime == self.runtime and each.precision == "fp32")

    @property
    def layout(self) -> Layout:
        """Order of the axes of four-dimensional inputs and outputs: ``NCHW`` or ``NHWC``."""
        return "NCHW" if self.runtime == "onnxruntime" else "NHWC"

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that decide the exported graph."""
        if self.runtime == "onnxruntime":
            exporter, quantiser = ("torch", "onnxscript", "onnx"), "onnxruntime"
        else:
            exporter, quantiser = ("torch", "litert-torch", "litert-converter"), "ai-edge-quantizer"
        return exporter if self.precision == "fp32" else (*exporter, quantiser)


def format_of(target: Target) -> Format:
    """The format that the target's runtime loads, in the target's precision.

    Raises:
        TargetError: nothing is exported for this runtime, or not in this precision.
    """
    of_runtime = {fmt.precision: fmt for fmt in Format if fmt.runtime == target.runtime}
    if not of_runtime:
        runtimes = ", ".join(dict.fromkeys(fmt.runtime for fmt in Format))
        raise TargetError(
            f"nothing can be exported for target '{target}'",
            why=f"models are exported for {runtimes}, not for {target.runtime}",
            fix=f"write {target.device}/onnxruntime:fp32@{target.threads}",
        )
    if target.precision not in of_runtime:
        raise TargetError(
            f"nothing can be exported for target '{target}'",
            why=f"models are exported in {listed(of_runtime)}; "
            "other precisions can be measured by 'lathe profile'",
            fix=f"write {target.device}/{target.runtime}:fp32@{target.threads}",
        )
    return of_runtime[target.precision]


def in_float(target: Target) -> Target:
    """The same target in fp32, which is the target itself if it is.

    Raises:
        TargetError: as ``format_of`` does.
    """
    return replace(target, precision=format_of(target).in_float.precision)


def exporter_versions(fmt: Format) -> dict[str, str]:
    """Versions of the packages that decide the exported graph; a build suffix (``+cpu``) is left out.

    Raises:
        ExportError: one of them is not installed.
    """
    try:
        return {package: installed_version(package).partition("+")[0] for package in fmt.packages}
    except metadata.PackageNotFoundError as error:
        raise ExportError(
            f"the exporter for {fmt} is not installed",
            why=f"the package {error.name} is missing",
            fix=how_to_install(fmt.runtime),
        ) from None


@functools.cache
def installed_version(package: str) -> str:
    """Version of a package, read once: that takes milliseconds, and every workload's identity holds it."""
    return metadata.version(package)


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
    from latency_db.store import Workload

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
    from latency_db.store import Workload

    return Workload.of("network", str(architecture), content)


def exporter_identity(fmt: Format) -> dict[str, object]:
    """What decides an exported graph besides the module itself, as JSON; part of every workload's identity.

    Raises:
        ExportError: the exporter is not installed.
    """
    identity = {"format": fmt.value, "convention": _CONVENTION, "exporter": exporter_versions(fmt)}
    if fmt.precision == "fp32":
        return identity
    return {**identity, "precision": fmt.precision, "quantisation": _QUANTISATION}
