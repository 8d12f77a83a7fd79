"""A student of a run, compiled for one target by a variant that leaves its outputs as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.errors import MeasurementError, TargetError
from devices.inventory import connected
from devices.measurement import MeasuringProtocol
from devices.measuring import PRACTICAL, Entrant, Round, Rounds, measure_round, probe
from devices.target import Target
from pipeline.compile.artifact import Artifact
from pipeline.compile.variants import CompileTask, CompileVariant, default_variant, known_variants
from pipeline.errors import ExportError
from pipeline.export.base import INPUT_NAME, format_of


def compile_artifact(
    exported: Path,
    target: Target,
    folder: Path,
    variant: CompileVariant | None = None,
    calibration: NDArray[np.float32] | None = None,
) -> Artifact:
    """Compile an exported network for a target, into ``folder/STEM.SUFFIX``.

    The same exported file gives the same bytes, on the same CPU and with the same runtime version.

    Args:
        exported: ONNX or LiteRT file in float, as the target's runtime asks.
        target: where the artifact will run.
        folder: where to; made when it is not there. Not the folder of ``exported``.
        variant: by default the one that fits the target best as far as can be said without a measurement.
        calibration: inputs ``(N, ...)`` as the file takes them, for a variant that calibrates.

    Raises:
        TargetError: nothing is compiled for the target's runtime, or in its precision.
        ExportError: the runtime is not installed here, or the file is not one that it takes.
    """
    fmt = format_of(target)
    variant = variant or default_variant(target)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{exported.stem}{variant.suffix}"
    inputs = {} if calibration is None else {INPUT_NAME: calibration}
    notes = variant.make(CompileTask(exported, target, inputs), path)
    return Artifact.of(path, target, fmt, {"variant": variant.name, **notes})


def fastest_variant(
    exported: Path, target: Target, folder: Path, protocol: MeasuringProtocol
) -> CompileVariant:
    """The variant whose file is fastest on a target, of all that leave the outputs as they are.

    All are measured in the same rounds. The default variant is taken unless another is faster by more than
    ``PRACTICAL``.

    Args:
        exported: ONNX or LiteRT file, as the target's runtime asks.
        target: where the files run.
        folder: where they are made.
        protocol: gives the number of rounds.

    Raises:
        TargetError: the target cannot be reached, or went away.
        MeasurementError: the default variant does not run there.
        ExportError: as ``compile_artifact``.
    """
    default = default_variant(target)
    entrants: dict[str, tuple[CompileVariant, Entrant]] = {}
    for variant in known_variants():
        fits = (variant.runtime, variant.precision) == (target.runtime, target.precision)
        if not (fits and variant.lossless) or variant.unfit(target):
            continue
        try:
            made = compile_artifact(exported, target, folder / variant.name.replace(":", "-"), variant)
        except ExportError:
            if variant is default:
                raise
            continue
        entrants[variant.name] = variant, Entrant(variant.name, made.path, target)
    measured: list[Round] = []
    with connected(target.device) as connection:
        for number in range(protocol.launches):
            measured.append(
                measure_round([each for _, each in entrants.values()], protocol, number, connection)
            )
            if (lost := measured[-1].lost) is not None:
                raise TargetError(
                    f"'{target.device}' went away while variants were measured",
                    why=lost.detail,
                    fix="run the same command again when it is back",
                )
    table = Rounds(tuple(measured), protocol, probe(target)[1].cores)
    if (reason := table.failure(default.name)) is not None:
        raise MeasurementError(f"{exported.name} does not run on {target}", why=reason.detail)
    ratios = {
        name: ratio.value
        for name in entrants
        if table.failure(name) is None and (ratio := table.ratio(name, default.name)) is not None
    }
    fastest = min(ratios, key=lambda name: ratios[name])
    return entrants[fastest][0] if ratios[fastest] * (1 + PRACTICAL) < 1 else default
