"""The graph of a model with the time of each operation, as a drawing in HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from devices.artifacts import OnnxNode
from devices.requests import Operation
from pipeline.report.nodes import nodes_of

MOST_DRAWN = 3000
"""Operations beyond which nothing is drawn: a browser would take seconds for every movement."""
WIDTH, HEIGHT, ACROSS, DOWN = 190, 36, 210, 58
_LONGEST = 24


@dataclass(frozen=True)
class Drawn:
    """One operation of a drawing.

    Attributes:
        kind: what it does.
        name: in the file or, where there is no graph, as the runtime calls it.
        after: positions of those whose outputs it takes.
        time_ns: ``None`` where the runtime gives it no time of its own.
        where: what ran it.
    """

    kind: str
    name: str
    after: tuple[int, ...]
    time_ns: float | None
    where: str = ""


def drawn_graph(
    nodes: Sequence[OnnxNode], operations: Sequence[Operation]
) -> tuple[list[Drawn], list[Operation]]:
    """The nodes of a file with their times, and the operations that are none of them.

    A node without a time of its own was joined with another, computed before anything ran, or runs under a
    name that is not in the file.
    """
    found: dict[int, list[Operation]] = {}
    others = []
    for operation, position in zip(operations, nodes_of(nodes, operations), strict=True):
        if position is None:
            others.append(operation)
        else:
            found.setdefault(position, []).append(operation)
    makers = {name: position for position, node in enumerate(nodes) for name in node.outputs if name}
    return [
        Drawn(
            node.kind,
            node.name,
            tuple(dict.fromkeys(makers[name] for name in node.inputs if name in makers)),
            sum(each.time_ns for each in found[position]) if position in found else None,
            ", ".join(dict.fromkeys(each.where for each in found.get(position, ()))),
        )
        for position, node in enumerate(nodes)
    ], others


def drawn_chain(operations: Sequence[Operation]) -> list[Drawn]:
    """Operations one after another, where a file does not tell what takes what."""
    return [
        Drawn(each.kind, each.name, (number - 1,) if number else (), each.time_ns, each.where)
        for number, each in enumerate(operations)
    ]


def drawing(graph: Sequence[Drawn], sum_ns: float) -> str:
    """The graph as SVG: rows by the longest way from an input, the darker the larger the share of the time.

    Args:
        graph: in an order in which each stands behind those whose outputs it takes.
        sum_ns: of all operations' times.
    """
    places = _places(graph)
    columns = 1 + max((column for column, _ in places), default=0)
    rows = 1 + max((row for _, row in places), default=0)
    width, height = columns * ACROSS + 20, rows * DOWN + 20
    parts = [
        f'<path class="edge" d="{_edge(places[source], places[position])}"/>'
        for position, node in enumerate(graph)
        for source in node.after
    ]
    parts += [_box(node, place, sum_ns) for node, place in zip(graph, places, strict=True)]
    return (
        f'<div class="graph"><svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img">{"".join(parts)}</svg></div>'
    )


def _places(graph: Sequence[Drawn]) -> list[tuple[int, int]]:
    """Column and row of each: below all that it takes, in the column of the first of them if that is free."""
    places: list[tuple[int, int]] = []
    taken: set[tuple[int, int]] = set()
    for node in graph:
        above = [places[source] for source in node.after if source < len(places)]
        row = 1 + max((row for _, row in above), default=-1)
        column = above[0][0] if above else 0
        while (column, row) in taken:
            column += 1
        taken.add((column, row))
        places.append((column, row))
    return places


def _edge(source: tuple[int, int], target: tuple[int, int]) -> str:
    x0, y0 = 10 + source[0] * ACROSS + WIDTH / 2, 10 + source[1] * DOWN + HEIGHT
    x1, y1 = 10 + target[0] * ACROSS + WIDTH / 2, 10 + target[1] * DOWN
    # What passes rows by goes round them on the right.
    aside = 0.75 * WIDTH if target[1] - source[1] > 1 and source[0] == target[0] else 0
    return f"M{x0:g} {y0:g}C{x0 + aside:g} {y0 + 18:g} {x1 + aside:g} {y1 - 18:g} {x1:g} {y1:g}"


def _box(node: Drawn, place: tuple[int, int], sum_ns: float) -> str:
    x, y = 10 + place[0] * ACROSS, 10 + place[1] * DOWN
    share = 0.0 if node.time_ns is None or not sum_ns else node.time_ns / sum_ns
    told = "no time of its own" if node.time_ns is None else f"{node.time_ns / 1e6:.4f} ms, {share:.1%}"
    title = " · ".join(filter(None, (node.kind, node.name, told, node.where)))
    style = f' style="fill-opacity:{0.06 + 0.64 * share**0.5:.2f}"' if node.time_ns is not None else ""
    css = "timed" if node.time_ns is not None else "untimed"
    return (
        f'<g class="{css}"><title>{html.escape(title)}</title>'
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="4"{style}/>'
        f'<text x="{x + 8}" y="{y + 15}">{html.escape(_cut(node.kind or node.name))}</text>'
        f'<text class="time" x="{x + 8}" y="{y + 29}">{html.escape(told)}</text></g>'
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
