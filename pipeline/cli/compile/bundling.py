"""``--out`` of ``lathe compile``: what a bundle needs is known before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from devices.errors import LatheError, TargetError
from devices.runtimes import known_runtimes
from pipeline.bundle.writing import inference_script, require_replaceable
from pipeline.compile import Raced, Wish
from pipeline.stages.delivery.compiled_bundle import CompiledBundle


def wish_for_bundle(wish: Wish, out: Path) -> Wish:
    """What is asked for, among the runtimes that a bundle has inference scripts for.

    Raises:
        WorkFolderError: ``out`` is there and not a bundle alone.
        TargetError: a place names a runtime without an inference script.
    """
    require_replaceable(out)
    for place in wish.places:
        if place.runtime is not None:
            inference_script(place.runtime)  # raises where there is none
    return replace(wish, runtimes=frozenset(filter(_has_script, (each.name for each in known_runtimes()))))


def _has_script(runtime: str) -> bool:
    try:
        inference_script(runtime)
    except TargetError:
        return False
    return True


def write_to(out: Path, bundle: CompiledBundle, document: Mapping[str, Any]) -> Path | LatheError:
    """Write the bundle with all that was tried, as ``document`` has it: its folder, or why there is none."""
    try:
        found = replace(bundle.found, raced=_by_target(bundle.found.raced))
        return replace(bundle, found=found).write(_portable(document), out)
    except LatheError as error:
        return error


def _by_target(raced: Mapping[str, Raced]) -> dict[str, Raced]:
    """Of places whose choices run on the same target the first: a bundle has each target once."""
    first: dict[str, tuple[str, Raced]] = {}
    for place, each in raced.items():
        if each.chosen is not None:
            first.setdefault(each.row(each.chosen).target, (place, each))
    return dict(first.values())


def _portable(document: Mapping[str, Any]) -> dict[str, Any]:
    """What was tried without what differs between machines and calls: the same inputs give the same bytes."""
    targets = [
        {**target, "variants": [{**row, "file": None} for row in target["variants"]]}
        for target in document["targets"]
    ]
    return {**{name: document[name] for name in ("model", "samples")}, "targets": targets}
