"""Stage ``teacher-latency``: the baseline, what the teacher itself would take on the targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.measurement import Measurement
from devices.statistics import Interval
from devices.target import Target
from latency_db.keys import Workload
from pipeline.export.base import exporter_versions, format_of
from pipeline.stages.context import Context
from pipeline.stages.latency import Build, Shape, measure_modules
from pipeline.stages.space import Task

if TYPE_CHECKING:
    from torch import nn

_WHOLE = "whole network"


@dataclass(frozen=True)
class TeacherLatency:
    """Measured latencies on one target: of the whole teacher, and of its modules each run alone.

    ``whole`` is ``None`` and a module is absent where it could not be exported or run there.
    """

    whole: Interval | None
    modules: tuple[tuple[str, Interval], ...]


@dataclass(frozen=True)
class TeacherLatencies:
    """By target as text."""

    by_target: Mapping[str, TeacherLatency]


def measure_teacher(context: Context, task: Task) -> TeacherLatencies:
    """Measure the teacher, whole and by modules; for comparison only, so a failure stops nothing."""
    inputs = {
        "teacher": task.teacher.summary.digest,
        "input_shape": list(task.data.summary.input_shape),
        "targets": [context.conditions(target) for target in context.budgets],
        "exporters": [exporter_versions(format_of(target)) for target in context.budgets],
    }

    def compute(folder: Path) -> TeacherLatencies:
        return TeacherLatencies({str(target): _measure(context, task, target) for target in context.budgets})

    value = context.work.stage("teacher-latency", inputs, TeacherLatencies, compute)
    for name, latency in value.by_target.items():
        said = latency.whole or "could not be exported or run there"
        context.reporter.note(f"teacher      {name}: {said}")
    return value


def _measure(context: Context, task: Task, target: Target) -> TeacherLatency:
    teacher, shape = task.teacher.teacher.module, task.data.summary.input_shape
    parts: dict[str, tuple[Build, Shape]] = {_WHOLE: (lambda: teacher, shape)}
    for name, module, input_shape in _modules(teacher, shape):
        parts[name] = ((lambda m=module: m), input_shape)  # type: ignore[misc]
    content: dict[str, Any] = {
        "teacher": task.teacher.summary.digest,
        "exporter": exporter_versions(format_of(target)),
    }
    workloads = {
        name: Workload.of(
            "network" if name == _WHOLE else "block",
            f"teacher {task.teacher.summary.name}: {name}",
            {**content, "module": name, "input_shape": list(part_shape)},
        )
        for name, (_, part_shape) in parts.items()
    }
    builds = {workloads[name].identity: part for name, part in parts.items()}
    outcomes = measure_modules(context, list(workloads.values()), builds, target, f"teacher on {target}")
    latencies = {
        name: outcome.latency
        for name, workload in workloads.items()
        if isinstance(outcome := outcomes[workload.identity], Measurement)
    }
    return TeacherLatency(
        latencies.get(_WHOLE), tuple((name, ns) for name, ns in latencies.items() if name != _WHOLE)
    )


def _modules(teacher: nn.Module, shape: Shape) -> Iterator[tuple[str, nn.Module, Shape]]:
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
