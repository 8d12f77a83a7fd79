"""From a finished model to the file that a device runs: which form of it, is found by measurement."""

from __future__ import annotations

from pipeline.compile.artifact import Artifact
from pipeline.compile.choice import Rules
from pipeline.compile.compiling import (
    CompiledModel,
    Wish,
    compile_model,
    held_out_of,
    operations_of,
    outputs_of,
)
from pipeline.compile.feeding import Feeding
from pipeline.compile.model import TensorSpec
from pipeline.compile.model_files import specs_of
from pipeline.compile.place import Place
from pipeline.compile.result import Fate, Objective, Raced, Row
from pipeline.compile.services import BetweenOf
from pipeline.compile.students import compile_artifact, fastest_variant
from pipeline.compile.variants import (
    CompileTask,
    CompileVariant,
    ModelFormat,
    deciding_packages,
    default_variant,
    find_variant,
    known_variants,
)

__all__ = [
    "Artifact",
    "BetweenOf",
    "CompileTask",
    "CompileVariant",
    "CompiledModel",
    "Fate",
    "Feeding",
    "ModelFormat",
    "Objective",
    "Place",
    "Raced",
    "Row",
    "Rules",
    "TensorSpec",
    "Wish",
    "compile_artifact",
    "compile_model",
    "deciding_packages",
    "default_variant",
    "fastest_variant",
    "find_variant",
    "held_out_of",
    "known_variants",
    "operations_of",
    "outputs_of",
    "specs_of",
]
