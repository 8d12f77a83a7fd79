"""The teacher as workloads: whole, and its modules each alone; the baseline beside every student."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from devices.measurement import PASSING_CODES, Interval, Measurement, MeasurementFailure, Outcome
from latency_db.store import Workload
from pipeline.export.base import Format, exporter_identity
from pipeline.stages.inputs.teacher import TeacherSummary
from pipeline.stages.services import Services
from pipeline.tables.building.measuring import ModuleWorkload, Shape
from pipeline.work.canonical import StoredFile
from pipeline.work.stage import StageFolder

if TYPE_CHECKING:
    from torch import nn

_WHOLE = "whole network"


@dataclass(frozen=True)
class TeacherLatency:
    """Measured latencies on one target: of the whole teacher, and of its modules each run alone.

    ``whole`` is ``None`` and a module is absent where it could not be exported or run there: the teacher is
    there for comparison, so its failure stops nothing. ``missing`` are those that failed in a way that may
    pass. ``disturbed`` and ``canary_ns`` (``Measurement.canary_ns``) are said of the whole.
    """

    whole: Interval | None
    modules: tuple[tuple[str, Interval], ...]
    missing: tuple[str, ...] = ()
    disturbed: bool = False
    canary_ns: float | None = None

    @property
    def may_come(self) -> bool:
        """Whether the whole teacher has no latency because of something that may pass."""
        return _WHOLE in self.missing


def teacher_parts(summary: TeacherSummary, teacher: nn.Module, fmt: Format) -> dict[str, ModuleWorkload]:
    """The teacher cut into parts, by name."""
    shape = summary.data.input_shape

    def part(name: str, module: nn.Module, input_shape: Shape) -> ModuleWorkload:
        content = {
            "teacher": summary.digest,
            "module": name,
            "input_shape": list(input_shape),
            **exporter_identity(fmt),
        }
        kind: Literal["network", "block"] = "network" if name == _WHOLE else "block"
        workload = Workload.of(kind, f"teacher {summary.name}: {name}", content)
        return ModuleWorkload(workload, lambda: module, input_shape)

    parts = {
        name: part(name, module, its_shape) for name, module, its_shape in teacher_modules(teacher, shape)
    }
    return {_WHOLE: part(_WHOLE, teacher, shape), **parts}


def teacher_latency(parts: Mapping[str, ModuleWorkload], outcomes: Mapping[str, Outcome]) -> TeacherLatency:
    """What the outcomes, by workload identity, say of the teacher."""
    by_name = {name: outcomes[part.workload.identity] for name, part in parts.items()}
    found = {name: each.latency for name, each in by_name.items() if isinstance(each, Measurement)}
    modules = tuple((name, interval) for name, interval in found.items() if name != _WHOLE)
    missing = (
        name for name, each in by_name.items() if isinstance(each, MeasurementFailure) and each.passing
    )
    whole = by_name[_WHOLE]
    if not isinstance(whole, Measurement):
        return TeacherLatency(None, modules, tuple(missing))
    return TeacherLatency(whole.latency, modules, tuple(missing), not whole.sharp, whole.canary_ns)


def keep_teacher(
    wholes: Mapping[Format, ModuleWorkload], folder: StageFolder, services: Services
) -> tuple[dict[Format, StoredFile], tuple[Format, ...]]:
    """The whole teacher as a file of each format, for the user to compare with; what fails is left out.

    The second part are formats in which it failed in a way that may pass.

    Args:
        wholes: as of ``whole_teacher``.
        folder: where to.
        services: exports, which takes what was exported to be measured.
    """
    wanted = {fmt: {each.workload.identity: (each.build, each.shape)} for fmt, each in wholes.items()}
    kept: dict[Format, StoredFile] = {}
    missing: list[Format] = []
    with services.export(wanted, "the teacher", services.reporter) as files:
        for fmt, each in wholes.items():
            file, name = files[fmt][each.workload.identity], f"teacher{fmt.suffix}"
            if isinstance(file, Path):
                shutil.copyfile(file, folder / name)
                kept[fmt] = folder.stored(name)
            elif file.code in PASSING_CODES:
                missing.append(fmt)
    return kept, tuple(missing)


def whole_teacher(parts: Mapping[str, ModuleWorkload]) -> ModuleWorkload:
    """Of the teacher's parts, the one that is all of it."""
    return parts[_WHOLE]


def teacher_modules(teacher: nn.Module, shape: Shape) -> Iterator[tuple[str, nn.Module, Shape]]:
    """Outermost modules that are called once with one image-like tensor, with the shape it has there.

    Containers with a single child, and sequences, are opened; what happens between modules is not seen.
    """
    import torch
    from torch import nn

    opened = teacher
    prefix = ""
    while len(children := list(opened.named_children())) == 1:
        name, opened = children[0]
        prefix += f"{name}."
    candidates: dict[str, nn.Module] = {}
    for name, child in opened.named_children():
        inner = dict(child.named_children()) if isinstance(child, nn.Sequential) and len(child) > 3 else {}
        for inner_name, module in inner.items():
            candidates[f"{prefix}{name}.{inner_name}"] = module
        if not inner:
            candidates[f"{prefix}{name}"] = child
    seen: dict[str, list[Shape]] = {name: [] for name in candidates}

    def note(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            first = arguments[0] if len(arguments) == 1 else None
            if isinstance(first, torch.Tensor) and first.dim() == 4:
                seen[name].append((first.shape[1], first.shape[2], first.shape[3]))

        return hook

    handles = [module.register_forward_pre_hook(note(name)) for name, module in candidates.items()]
    try:
        with torch.no_grad():
            teacher(torch.zeros(1, *shape))
    finally:
        for handle in handles:
            handle.remove()
    for name, module in candidates.items():
        if len(seen[name]) == 1:
            yield name, module, seen[name][0]
