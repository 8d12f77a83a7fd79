"""What is left of a teacher, as a drawing of the teacher's graph."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.data import KeptLayer, KeptUnit
from pipeline.report.graph import Box, Frame, Grid, drawing

_GRID = Grid(width=124, height=34, across=136, down=46, longest=18)
_PAGE_WIDTH = 1080
_SHADE = 0.4


def drawn_units(units: Sequence[KeptUnit]) -> str:
    """The graph as SVG: units as frames, layers as boxes that are filled by the share that is left."""
    return drawing([_frame(each) for each in units], _GRID, _PAGE_WIDTH)


def key_of_units() -> str:
    """What the drawing's boxes mean, as HTML."""
    return (
        '<p class="key"><span><i class="bar" style="--ink: var(--measured)"></i>share that is left</span>'
        '<span><i class="dashed" style="--ink: var(--muted)"></i>removed with its block</span></p>'
    )


def _frame(unit: KeptUnit) -> Frame:
    told = [
        f"{target}: {before:.1%} of the teacher's latency, {after:.1%} left"
        for target, before, after in unit.latencies
    ]
    name = unit.name or unit.layers[0].name
    return Frame(
        tuple(_box(each, unit.name) for each in unit.layers),
        label=unit.name,
        note=_percents(*unit.latencies[0][1:]) if unit.latencies else "",
        hover="\n".join((f"{name}, removed" if unit.removed else name, *told)),
        style="removed" if unit.removed else "unit",
    )


def _percents(before: float, after: float) -> str:
    return f"{100 * before:.1f} → {100 * after:.1f} %"


def _box(layer: KeptLayer, around: str) -> Box:
    name = layer.name.removeprefix(f"{around}.") or layer.kind
    if layer.removed:
        left = "removed"
    else:
        left = f"{layer.kept} of {layer.whole} {layer.parts}" if layer.whole else ""
    return Box(
        title=name,
        note=("removed" if layer.removed else f"{layer.kept}/{layer.whole} {layer.parts}")
        if layer.whole
        else "",
        hover=", ".join(filter(None, (layer.name, layer.kind, left))),
        after=layer.after,
        style="removed" if layer.removed else "layer",
        filled=layer.kept / layer.whole if layer.whole else 0.0,
        shade=_SHADE,
    )
