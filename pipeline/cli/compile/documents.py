"""What ``lathe compile --json`` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from devices.errors import LatheError
from devices.measurement import BetweenBatches
from devices.requests import OperationProfile
from devices.result_file import Entry
from pipeline.cli.compile.text import Profiles
from pipeline.cli.output import error_json
from pipeline.cli.profile.documents import entry_json
from pipeline.compile import CompiledModel, Raced, Row
from pipeline.work.folder import WorkFolder


def compiled_json(found: CompiledModel, profiles: Profiles, folder: WorkFolder) -> dict[str, Any]:
    """All of it but the raw samples."""
    model, samples = found.model, found.samples
    return {
        "model": {
            "name": model.name,
            "format": model.format.value,
            "inputs": [asdict(each) for each in model.inputs],
            "outputs": [asdict(each) for each in model.outputs],
            "operators": dict(model.operators),
        },
        "samples": {
            "calibration": samples.counts[0],
            "held_out": samples.counts[1],
            "labelled": samples.labelled,
            "random": samples.random,
            "task": None if samples.task is None else samples.task.kind,
            "metric": None if samples.task is None else samples.task.metric,
        },
        "targets": [_raced(raced, profiles.get(place), folder) for place, raced in found.raced.items()],
        "errors": [{"target": place, **error_json(error)} for place, error in found.errors.items()],
        "cached": found.cached,
        "seconds": round(found.seconds, 3),
    }


def _raced(
    raced: Raced, profile: tuple[OperationProfile, OperationProfile] | LatheError | None, folder: WorkFolder
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "target": raced.place,
        "baseline": raced.baseline,
        "chosen": raced.chosen,
        "reason": raced.reason,
        "front": list(raced.front),
        "keeps_budget": raced.keeps_budget,
        "warnings": list(raced.warnings),
        "sensitivity": {
            fmt.value: [asdict(layer) for layer in layers] for fmt, layers in raced.sensitivity.items()
        },
        "variants": [_row(row, folder, raced.between) for row in raced.rows],
    }
    if isinstance(profile, LatheError):
        document["operations"] = error_json(profile)
    elif profile is not None:
        names = (raced.baseline, raced.chosen or raced.baseline)
        document["operations"] = [
            entry_json(Entry((name,), each)) for name, each in zip(names, profile, strict=True)
        ]
    return document


def _row(row: Row, folder: WorkFolder, between: BetweenBatches | None) -> dict[str, Any]:
    measured = None
    if row.measurement is not None:
        measured = entry_json(
            Entry((row.name,), row.measurement), None if between is None else lambda _: between
        )
    return {
        "name": row.name,
        "variant": row.variant,
        "target": row.target,
        "fate": row.fate.value,
        "why": row.why,
        "lossless": row.lossless,
        "file": None if row.file is None else str(folder.find(row.file)),
        "digest": None if row.file is None else row.file.digest,
        "notes": dict(row.notes),
        "size_bytes": row.size_bytes,
        "quality": None if row.quality is None else {**asdict(row.quality), "drop_points": row.quality.drop},
        "ratio": None if row.ratio is None else asdict(row.ratio),
        "rounds": row.rounds,
        "peak_memory_bytes": row.peak_memory_bytes,
        "warnings": list(row.warnings),
        "measurement": measured,
    }
