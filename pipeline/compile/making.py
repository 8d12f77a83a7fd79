"""One variant of a finished model, made and kept: stage ``variant``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from devices.inventory import is_this_machine
from devices.target import Target
from pipeline.compile.model import GivenModel
from pipeline.compile.processors import processor_name
from pipeline.compile.quality import channels_last
from pipeline.compile.samples import Samples, inputs_in, open_samples
from pipeline.compile.services import CompileServices
from pipeline.compile.variants import CompileTask, CompileVariant, find_variant, variant_owner
from pipeline.errors import ExportError, PassingExportError
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.stage import StageFolder, installed, stage


@dataclass(frozen=True)
class MakeInput:
    """Which variant of what, for where.

    Attributes:
        model: the file, in the format that the variant takes.
        variant: by its name.
        versions: of the packages that decide the bytes, and of the distribution that brings the variant.
        target: where it runs.
        processor: of this machine, where the target is on it.
        turned: the file takes channels last where the samples have them first.
        input_names: of the model, in its order.
        samples: to calibrate with; ``None`` for a variant that needs none.
        sensitive: operators by how much they lose in int8, for a variant that asks for them.
    """

    model: StoredFile
    variant: str
    versions: Mapping[str, str]
    target: Target
    processor: str
    turned: bool
    input_names: tuple[str, ...]
    samples: Samples | None = by_digest()
    sensitive: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        model: GivenModel,
        variant: CompileVariant,
        target: Target,
        samples: Samples,
        sensitive: tuple[str, ...] = (),
    ) -> MakeInput:
        """With the packages as they are now."""
        return cls(
            model.files[variant.takes],
            variant.name,
            versions_of(variant),
            target,
            processor_name() if is_this_machine(target.device) else "",
            model.turned(variant.takes),
            tuple(each.name for each in model.inputs),
            samples if variant.calibrates else None,
            sensitive if variant.from_sensitivity else (),
        )


def versions_of(variant: CompileVariant) -> dict[str, str]:
    """Of the packages that decide a variant's bytes, and of the distribution that brings it."""
    return {**installed(variant.packages), **variant_owner(variant)}


@dataclass(frozen=True)
class Made:
    """What became of a variant.

    Attributes:
        file: ``None`` if it could not be made.
        notes: how it was made.
        size_bytes: of the file.
        why_not: why there is no file.
        passing: that may be otherwise another time.
    """

    file: StoredFile | None
    notes: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    why_not: str = ""
    passing: bool = False


def _is_final(made: Made) -> bool:
    return not made.passing


@stage("variant", final=_is_final)
def make_variant(given: MakeInput, folder: StageFolder, services: CompileServices) -> Made:
    """Make a variant; that it cannot be made is a result too."""
    variant = find_variant(given.variant)
    name = f"model{variant.suffix}"
    try:
        with services.reporter.task(f"making {variant.name}", ""):
            notes = variant.make(_task(given, folder), folder / name)
    except ExportError as error:
        why = f"{error.what}: {error.why}" if error.why else error.what
        return Made(None, why_not=why, passing=isinstance(error, PassingExportError))
    return Made(folder.stored(name), notes, (folder / name).stat().st_size)


def calibration_of(
    samples: Samples, input_names: Sequence[str], folder: StageFolder, *, turned: bool
) -> tuple[dict[str, NDArray[Any]], Path]:
    """Inputs to calibrate with, by name, and the folder of what is shared by all that calibrate with them.

    Args:
        samples: of which they are.
        input_names: of the model, in its order.
        folder: of a stage, which finds them.
        turned: channels go last.
    """
    inputs = inputs_in(open_samples(samples, folder.find(samples.arrays), "calibration"), "calibration")
    inputs = tuple(map(channels_last, inputs)) if turned else inputs
    return dict(zip(input_names, inputs, strict=True)), folder.path.parent / samples.arrays.stage / "shared"


def _task(given: MakeInput, folder: StageFolder) -> CompileTask:
    calibration: dict[str, NDArray[Any]] = {}
    shared: Path | None = None
    if given.samples is not None:
        calibration, shared = calibration_of(given.samples, given.input_names, folder, turned=given.turned)
        shared /= given.model.digest[:16]
    return CompileTask(folder.find(given.model), given.target, calibration, given.sensitive, shared)
