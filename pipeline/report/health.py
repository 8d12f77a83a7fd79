"""The page of a device: how it has been, by its canaries."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latency_db.history import Health, Level, Point
from pipeline.report.document import document, plot, section, table, written
from pipeline.report.figures import Figure, plain_layout

_COLOURS = ("var(--measured)", "var(--other)", "var(--estimate)", "var(--limit)")
_NOTE = (
    "The canary is a small fixed network that is timed beside whatever is measured. Its latency over the "
    "usual one, the median of its runtime, shows how fast the machine was in a batch. Where most launches of "
    "a batch were void, its mark is hollow."
)


def render_health(name: str, facts: Sequence[tuple[str, str]], health: Health, path: Path) -> Path:
    """Write the page of a device as one HTML file that works offline; atomic.

    Args:
        name: of the device.
        facts: what is shown in words, name and text.
        health: of the device.
        path: of the file.

    Raises:
        WorkFolderError: the file cannot be written, or the disk is full.
    """
    return written(health_page(name, facts, health), path)


def health_page(name: str, facts: Sequence[tuple[str, str]], health: Health) -> str:
    """The page as HTML text."""
    title = f"Health of {name}"
    rows = table((html.escape(fact), html.escape(text)) for fact, text in facts)
    plots = [
        plot("level", "Batches, by when they began (UTC)", level_figure(health.points)),
        plot("hours", "Hours of the day (UTC)", levels_figure(health.by_hour, "hour")),
        plot("days", "Days (UTC)", levels_figure(health.by_day, "day")),
    ]
    if health.void:
        plots.append(plot("void", "What disturbed launches", void_figure(health)))
    body = (
        f'<h1>{html.escape(title)}</h1>\n<p class="lead">{html.escape(health.recommendation)}</p>\n'
        f'<div class="panel">{rows}</div>\n'
    )
    return document(title, body + section("The canary over its usual latency", _NOTE, plots))


def level_figure(points: Sequence[Point]) -> Figure:
    """The canary of every batch over the usual one, a colour for each target; hollow where most was void."""
    traces: list[dict[str, Any]] = []
    targets = dict.fromkeys(point.target for point in points)
    for target, colour in zip(targets, itertools.cycle(_COLOURS), strict=False):
        group = [point for point in points if point.target == target]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": html.escape(target, quote=False),
                "meta": "circle",
                "x": [f"{point.started_at:%Y-%m-%d %H:%M:%S}" for point in group],
                "y": [point.slowdown for point in group],
                "marker": {
                    "size": 8,
                    "color": colour,
                    "symbol": ["circle-open" if point.void_share > 0.5 else "circle" for point in group],
                },
                "text": [f"{point.verdict}, {point.void_share:.0%} of launches void" for point in group],
                "hovertemplate": "%{x}: %{y:.3f}x<br>%{text}<extra></extra>",
            }
        )
    layout = plain_layout("", "canary over usual")
    layout["xaxis"]["type"] = "date"
    return {"data": traces, "layout": layout}


def levels_figure(levels: Sequence[Level], unit: str) -> Figure:
    """The median level of each hour or day."""
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"median of the {unit}",
        "meta": "line",
        "x": [level.of for level in levels],
        "y": [level.slowdown for level in levels],
        "line": {"color": "var(--measured)", "width": 2},
        "text": [f"{level.batches} batches" for level in levels],
        "hovertemplate": "%{x}: %{y:.3f}x<br>%{text}<extra></extra>",
    }
    layout = plain_layout(unit, "canary over usual")
    layout["xaxis"]["type"] = "category"
    return {"data": [trace], "layout": layout}


def void_figure(health: Health) -> Figure:
    """Void launches by what disturbed them."""
    trace = {
        "type": "bar",
        "meta": "bar",
        "name": f"void, of {health.launches} launches",
        "x": list(health.void),
        "y": list(health.void.values()),
        "marker": {"color": "var(--limit)"},
        "hovertemplate": "%{x}: %{y}<extra></extra>",
    }
    return {"data": [trace], "layout": plain_layout("", "void launches")}
