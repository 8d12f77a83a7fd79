"""What is left of a teacher in a student that was cut from it, layer by layer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from devices.measurement import Interval
from pipeline.report import KeptLayer, KeptUnit
from pipeline.spaces.base import Architecture
from pipeline.spaces.teacher.config import Unit
from pipeline.spaces.teacher.space import TeacherSpace
from pipeline.stages.inputs.space import SpacePlan
from pipeline.work.stage import StageFolder

if TYPE_CHECKING:
    from pipeline.methods.subgraph.layers import GraphLayer


def kept_units(
    plan: SpacePlan,
    architecture: Architecture,
    rows: Mapping[str, Mapping[str, Interval]],
    folder: StageFolder,
) -> tuple[KeptUnit, ...]:
    """The teacher's units with what is left of each of their layers; empty if the space is not a teacher's.

    Args:
        plan: of the space.
        architecture: of the student.
        rows: by target, latencies of blocks by their identities.
        folder: where the teacher is found.
    """
    if not isinstance(plan.space, TeacherSpace):
        return ()
    from pipeline.methods.subgraph.layers import graph_layers, parts_of
    from pipeline.methods.subgraph.units import OpenTeacherSpace

    space = plan.open(folder)
    assert isinstance(space, OpenTeacherSpace)
    counts = space.counts(architecture)
    blocks = [each.name for each in space.config.structures if each.kind == "block"]
    gone = [name for name in blocks if not counts[name]]
    before, after = parts_of(space.network), parts_of(space.build(architecture))

    def count(parts: Mapping[str, tuple[int, str]], name: str) -> int:
        """Of a layer, or of all in it if it is a block that cannot be looked into."""
        inside = (number for other, (number, _) in parts.items() if _is_in(other, name))
        return parts[name][0] if name in parts else sum(inside)

    def kept(layer: GraphLayer) -> KeptLayer:
        removed = any(_is_in(layer.name or layer.around, block) for block in gone)
        if not layer.name:
            return KeptLayer("", layer.kind, layer.after, removed=removed)
        _, kind = before.get(layer.name, (0, "channels"))
        return KeptLayer(
            space.layer_name(layer.name),
            layer.kind,
            layer.after,
            0 if removed else count(after, layer.name),
            count(before, layer.name),
            kind,
            removed,
        )

    graph = graph_layers(space.network, blocks, [each.name for each in space.config.units])
    whole = {each.name: each.count for each in space.config.structures}
    of_whole = {space.block(each, whole).identity for each in space.config.units}
    totals = {
        target: sum(_latency_ns(space, each, whole, its) for each in space.config.units)
        for target, its in rows.items()
        # Elsewhere the whole teacher does not run.
        if of_whole <= its.keys()
    }
    return tuple(
        KeptUnit(
            space.layer_name(f"{_around(layers)}.").removesuffix("."),
            tuple(map(kept, layers)),
            tuple(
                (
                    target,
                    _latency_ns(space, unit, whole, rows[target]) / total,
                    _latency_ns(space, unit, counts, rows[target]) / total,
                )
                for target, total in totals.items()
            ),
        )
        for unit, layers in _by_unit(graph, space.config.units)
    )


def _by_unit(graph: Sequence[GraphLayer], units: Sequence[Unit]) -> list[tuple[Unit, list[GraphLayer]]]:
    """Units with their layers: each begins with the layer or block of its name.

    One that only scales channels has none to show.
    """
    found: dict[str, list[GraphLayer]] = {}
    inside = units[0].name
    for layer in graph:
        inside = next((each.name for each in units if _is_in(layer.name, each.name)), inside)
        found.setdefault(inside, []).append(layer)
    return [(each, found[each.name]) for each in units if each.name in found]


def _latency_ns(
    space: TeacherSpace, unit: Unit, counts: Mapping[str, int], rows: Mapping[str, Interval]
) -> float:
    if unit.block is not None and not counts[unit.block]:
        return 0.0
    return rows[space.block(unit, counts).identity].value_ns


def _around(layers: Sequence[GraphLayer]) -> str:
    """The innermost module that has all layers in it."""
    modules = [each.around.split(".") for each in layers]
    shared = itertools.takewhile(lambda steps: len(set(steps)) == 1, zip(*modules, strict=False))
    return ".".join(steps[0] for steps in shared)


def _is_in(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")
