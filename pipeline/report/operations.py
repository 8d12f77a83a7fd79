"""The operations of a model with the time of each, as a drawing of its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devices.artifacts import OnnxNode
from devices.requests import Operation
from pipeline.report.graph import Box, Frame, Grid, drawing
from pipeline.report.nodes import nodes_of

MOST_DRAWN = 3000
"""Operations beyond which nothing is drawn: a browser would take seconds for every movement."""
_GRID = Grid(width=190, height=36, across=210, down=58, longest=24)


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


def drawn_operations(graph: Sequence[Drawn], sum_ns: float) -> str:
    """The graph as SVG, the darker the larger the share of the time.

    Args:
        graph: in an order in which each stands behind those whose outputs it takes.
        sum_ns: of all operations' times.
    """
    return drawing([Frame(tuple(_box(each, sum_ns) for each in graph))], _GRID)


def _box(node: Drawn, sum_ns: float) -> Box:
    share = 0.0 if node.time_ns is None or not sum_ns else node.time_ns / sum_ns
    told = "no time of its own" if node.time_ns is None else f"{node.time_ns / 1e6:.4f} ms, {share:.1%}"
    return Box(
        title=node.kind or node.name,
        note=told,
        hover=" · ".join(filter(None, (node.kind, node.name, told, node.where))),
        after=node.after,
        style="untimed" if node.time_ns is None else "timed",
        filled=0.0 if node.time_ns is None else 1.0,
        shade=0.06 + 0.64 * share**0.5,
    )
