"""The ways to compile an exported network; the first one that is meant for a target is used.

A new variant is a module beside this one, a line in ``VARIANTS``, and a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from devices.inventory import HOST, runtime_of, uses_accelerator
from devices.target import Target
from pipeline.compile import litert, onnxruntime
from pipeline.export.base import Format, student_format


@dataclass(frozen=True)
class CompileVariant:
    """One way to compile.

    Attributes:
        name: of the variant, in an artifact's notes.
        format: what it takes, and what it writes.
        compile: compiles a file for a target into a path, atomically, and gives notes on how that was done.
            The same file must give the same bytes. Raises ``ExportError``.
        packages: installed packages whose versions decide the bytes.
        suits: whether it is meant for a target; for every target of its format by default.
    """

    name: str
    format: Format
    compile: Callable[[Path, Target, Path], Mapping[str, str]]
    packages: tuple[str, ...]
    suits: Callable[[Target], bool] = lambda target: True


def _runs_in_this_package(target: Target) -> bool:
    """Whether this machine runs it by the package that compiles it: a native tool may be another version."""
    return target.device == HOST.name and runtime_of(target).needs_python


VARIANTS = (
    CompileVariant(
        "onnxruntime-accelerator",
        Format.ONNX,
        onnxruntime.optimise_for_accelerators,
        ("onnxruntime", "onnx"),
        suits=uses_accelerator,
    ),
    CompileVariant(
        "onnxruntime-this-cpu",
        Format.ONNX,
        onnxruntime.optimise_for_this_cpu,
        ("onnxruntime", "onnx"),
        suits=_runs_in_this_package,
    ),
    CompileVariant(
        "onnxruntime-any-cpu", Format.ONNX, onnxruntime.optimise_for_any_cpu, ("onnxruntime", "onnx")
    ),
    CompileVariant("litert", Format.LITERT, litert.finish, ("flatbuffers", "ai-edge-litert")),
)


def variant_for(target: Target) -> CompileVariant:
    """The variant that compiles for a target.

    Raises:
        TargetError: nothing is compiled for the target's runtime, or in its precision.
    """
    fmt = student_format(target)
    return next(variant for variant in VARIANTS if variant.format == fmt and variant.suits(target))


def deciding_packages() -> tuple[str, ...]:
    """Packages whose versions decide what any variant writes."""
    return tuple(sorted({package for variant in VARIANTS for package in variant.packages}))
