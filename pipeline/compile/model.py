"""A finished model that somebody brings, in every form that variants take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devices.words import listed
from pipeline.compile.variants import ModelFormat
from pipeline.errors import ExportError
from pipeline.teachers.code import factory_digest
from pipeline.work.canonical import OutsideFile, StoredFile

COMPILED = "DISPATCH_OP"
"""The operator of LiteRT that stands for a part which was compiled for an NPU."""

_FORMATS = {".onnx": ModelFormat.ONNX, ".tflite": ModelFormat.LITERT, ".pt2": ModelFormat.TORCH}


@dataclass(frozen=True)
class Factory:
    """A function that returns a network of torch.

    Attributes:
        function: ``package.module:function``.
        arguments: by name.
        weights: state dict, ``.safetensors`` or a file of ``torch.save``.
        weights_key: which of several state dicts in it, or which prefix.
        code: digest of the code.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: OutsideFile | None = None
    weights_key: str | None = None
    code: str | None = None

    @classmethod
    def of(
        cls, function: str, arguments: Mapping[str, Any], weights: Path | None, weights_key: str | None = None
    ) -> Factory:
        """With weights and code as they are now."""
        return cls(function, arguments, OutsideFile.of(weights), weights_key, factory_digest(function))


@dataclass(frozen=True)
class ModelInput:
    """What somebody brings.

    Attributes:
        source: a file, or a factory.
        input_shape: of one input, without the batch; ``None`` where the file says it.
        formats: in which it is wanted, as far as it can be had.
        external: files beside an ONNX file that hold its weights.
    """

    source: OutsideFile | Factory
    input_shape: tuple[int, ...] | None
    formats: tuple[ModelFormat, ...]
    external: tuple[OutsideFile, ...] = ()

    @property
    def name(self) -> str:
        """Short, for people."""
        if isinstance(self.source, Factory):
            return self.source.function.partition(":")[2]
        return self.source.path.stem


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its shape has no open dimension."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_float(self) -> bool:
        """It holds floating point numbers."""
        return self.dtype.startswith("float")


@dataclass(frozen=True)
class GivenModel:
    """The model as it was brought.

    Attributes:
        name: short.
        format: in which it was brought.
        files: by format. Of torch the LiteRT file takes channels last, the others channels first.
        inputs: as the original takes them, at least one; of torch, channels first.
        outputs: likewise.
        operators: how many of each kind, where the format tells.
        quantised: it has integer operators already.
        notes: what there is to say of it.
    """

    name: str
    format: ModelFormat
    files: Mapping[ModelFormat, StoredFile]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int] = field(default_factory=dict)
    quantised: bool = False
    notes: tuple[str, ...] = ()

    @property
    def compiled(self) -> bool:
        """Parts of it were compiled for an NPU already, and nothing else runs them."""
        return COMPILED in self.operators

    @property
    def width(self) -> int | None:
        """How many numbers its first output has; ``None`` if that is no row of numbers."""
        shape = self.outputs[0].shape
        return shape[1] if len(shape) == 2 and shape[0] == 1 else None

    @property
    def classes(self) -> int | None:
        """How many classes its first output may score; ``None`` if that is no row of scores."""
        return self.width if self.width is not None and self.width > 1 else None

    def turned(self, fmt: ModelFormat) -> bool:
        """Whether the file of a format takes channels last where the original takes them first."""
        is_other = self.format is ModelFormat.TORCH and fmt is ModelFormat.LITERT
        return is_other and len(self.inputs[0].shape) == 4


def format_of_file(path: Path) -> ModelFormat:
    """By its suffix.

    Raises:
        ExportError: it is of no format that is compiled, or there is no such file.
    """
    fmt = _FORMATS.get(path.suffix.lower())
    if fmt is None:
        raise ExportError(
            f"{str(path)!r} is no model that can be compiled",
            why=f"models are {listed(_FORMATS)} files, or a factory written package.module:function",
            fix="export it to ONNX, or give the factory",
        )
    if not path.is_file():
        raise ExportError(
            f"there is no file {str(path)!r}", why="it is a folder" if path.is_dir() else "", fix="check it"
        )
    return fmt
