"""What a compile variant is: one way from a finished model to a file that a runtime loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.inventory import uses_accelerator
from devices.target import Target


class ModelFormat(StrEnum):
    """A form in which a finished model may be given to a variant: float32, not quantised."""

    ONNX = "onnx"
    LITERT = "litert"
    TORCH = "torch"
    """A program of ``torch.export``."""

    @property
    def runtime(self) -> str:
        """The runtime whose own format it is."""
        return {"onnx": "onnxruntime", "litert": "litert", "torch": "torch"}[self.value]

    @property
    def suffix(self) -> str:
        """File suffix with its dot."""
        return {"onnx": ".onnx", "litert": ".tflite", "torch": ".pt2"}[self.value]


@dataclass(frozen=True, eq=False)
class CompileTask:
    """What a variant is given.

    Attributes:
        model: the file, in the format that the variant takes.
        target: where the result will run.
        calibration: ``(N, ...)`` by name of an input, in the model's own layout and type, each row an input
            of batch 1; empty where there are no data, and then only variants that need none are made.
        sensitive: operators that lose most in int8, the worst first, by the names that
            ``pipeline.compile.sensitivity`` gives them; for variants that ask for them.
        shared: a folder for what variants of the same model and calibration need in common; ``None`` where
            there is no other variant.
    """

    model: Path
    target: Target
    calibration: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    sensitive: tuple[str, ...] = ()
    shared: Path | None = None


@dataclass(frozen=True)
class CompileVariant:
    """One way to compile.

    Attributes:
        runtime: that loads what it writes.
        precision: as in a target.
        how: what tells it from others of its runtime and precision; empty for the model as it comes.
        takes: format of the model that it is given.
        suffix: of the file that it writes, with its dot.
        make: writes a path atomically or not at all, and gives notes on how that was done, which end in the
            manifest of a bundle. The same task gives the same bytes. Raises ``ExportError``.
        packages: installed packages whose versions decide the bytes.
        lossless: it computes the same as the model, but for rounding in float32.
        calibrates: it needs ``calibration``.
        from_sensitivity: it needs ``sensitive``.
        instead_of: a variant in whose place it is tried where that loses too much accuracy.
        dear: making it takes longer than measuring it, so it is made only where it may become the fastest.
        like: another variant that computes with the same kernels. Where that is far behind after a round,
            this one cannot win and is not made.
        unfit: why it is not meant for a target; empty where it is.
    """

    runtime: str
    precision: str
    how: str
    takes: ModelFormat
    suffix: str
    make: Callable[[CompileTask, Path], Mapping[str, str]]
    packages: tuple[str, ...]
    lossless: bool = False
    calibrates: bool = False
    from_sensitivity: bool = False
    instead_of: str = ""
    dear: bool = False
    like: str = ""
    unfit: Callable[[Target], str] = lambda target: ""

    @property
    def name(self) -> str:
        """Unique, and stable from one version to the next: ``onnxruntime:int8-u8s8-percentile``."""
        return f"{self.runtime}:{self.precision}" + (f"-{self.how}" if self.how else "")


def not_on_accelerators(target: Target) -> str:
    """``unfit`` of variants whose operators are those of a runtime's own CPU kernels."""
    return "an execution provider or delegate takes other operators" if uses_accelerator(target) else ""
