"""The ways to compile a finished model: Lathe's own, and those of other installed distributions."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint

from devices.added import added, loaded, owner_of
from devices.target import Target
from pipeline.compile.variants import litert, litert_npu, onnxruntime, openvino, tensorrt, torch_programs
from pipeline.compile.variants.base import CompileTask, CompileVariant, ModelFormat
from pipeline.errors import ExportError
from pipeline.export.worker import ONNX_SIGNS

__all__ = [
    "VARIANTS",
    "CompileTask",
    "CompileVariant",
    "ModelFormat",
    "deciding_packages",
    "default_variant",
    "find_variant",
    "known_variants",
    "variant_owner",
]

VARIANTS: tuple[CompileVariant, ...] = (
    *onnxruntime.VARIANTS,
    *openvino.VARIANTS,
    *litert.VARIANTS,
    *litert_npu.VARIANTS,
    *torch_programs.VARIANTS,
    *tensorrt.VARIANTS,
)

_INT8_OF_TABLES = {"onnxruntime": f"{''.join(ONNX_SIGNS)}-minmax", "litert": "static"}

ENTRY_POINTS = "lathe.compile_variants"
"""Group of entry points by which other distributions add variants; each names a ``CompileVariant``."""


def known_variants() -> tuple[CompileVariant, ...]:
    """Lathe's own variants and those of other installed distributions; names are unique.

    Of a runtime and precision the first that is lossless is the one to take where nothing is measured.

    Raises:
        ExportError: a distribution names a variant that cannot be loaded, or one whose name is taken.
    """
    return (*VARIANTS, *_added_variants())


def find_variant(name: str) -> CompileVariant:
    """The variant of a name.

    Raises:
        ExportError: there is none, or as ``known_variants``.
    """
    for variant in known_variants():
        if variant.name == name:
            return variant
    raise ExportError(
        f"there is no compile variant '{name}'",
        why=f"known ones are {', '.join(variant.name for variant in known_variants())}",
        fix="choose one of them, or install the distribution that brings it",
    )


def variant_owner(variant: CompileVariant) -> dict[str, str]:
    """Version of the distribution that brings a variant, by its name; nothing for Lathe's own."""
    for entry in added(ENTRY_POINTS) if variant not in VARIANTS else ():
        if entry.load() == variant and entry.dist is not None:
            return {entry.dist.name: entry.dist.version}
    return {}


def default_variant(target: Target) -> CompileVariant:
    """The variant that compiles for a target where nothing is measured.

    In float it changes no output. In int8 it is the static one of which tables have the blocks.

    Raises:
        ExportError: there is none for the target's runtime and precision.
    """
    of_tables = f"{target.runtime}:int8-{_INT8_OF_TABLES.get(target.runtime)}"
    unfit = []
    for variant in known_variants():
        of_target = variant.runtime == target.runtime and variant.precision == target.precision
        if of_target and (variant.lossless or variant.name == of_tables):
            if not (reason := variant.unfit(target)):
                return variant
            unfit.append(f"{variant.name}: {reason}")
    raise ExportError(
        f"nothing is compiled for target '{target}' without a measurement",
        why="; ".join(unfit)
        or f"no variant of {target.runtime} in {target.precision} leaves the outputs as they are or has the "
        "operators of int8 tables",
        fix="change the target, or see 'lathe compile --help'",
    )


def deciding_packages() -> tuple[str, ...]:
    """Packages whose versions decide what any of Lathe's own variants writes."""
    return tuple(sorted({package for variant in VARIANTS for package in variant.packages}))


@functools.cache
def _added_variants() -> tuple[CompileVariant, ...]:
    taken = {variant.name for variant in VARIANTS}
    found = []
    for entry in added(ENTRY_POINTS):
        variant: CompileVariant = loaded(entry, CompileVariant, _unusable(entry))
        if variant.name in taken:
            raise _unusable(entry, f"there is another variant called '{variant.name}'")
        taken.add(variant.name)
        found.append(variant)
    return tuple(found)


def _unusable(entry: EntryPoint, why: str = "") -> ExportError:
    owner = owner_of(entry)
    return ExportError(
        f"the compile variant '{entry.name}' of {owner} cannot be used",
        why=why,
        fix=f"repair or uninstall {owner}",
    )
