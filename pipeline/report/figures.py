"""The plots of a report as plotly figures in plain JSON values.

Colours are names of the page's CSS variables (``var(--measured)``); the page puts the colours in, so that
plots follow a light or dark display. Estimates are hollow, measurements solid. The key stands outside the
plot; it is made from each trace's ``name``, which is HTML, and ``meta``: ``line``, ``hollow``, ``circle``,
``diamond`` or ``bar``.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from typing import Any

from pipeline.report.data import (
    BlockLatencies,
    CandidatePoint,
    ComparedNetwork,
    LayerMixture,
    TargetReport,
    TrainingCurve,
    pareto_front,
)

Figure = dict[str, Any]
_PERCENT = {"autorangeoptions": {"clipmax": 100}}
"""An axis of accuracies ends where they do; ``maxallowed`` would have it reach there always."""

_NS_PER_MS = 1e6
_LONGEST_LABEL = 72
_COLOURS = ("var(--measured)", "var(--other)", "var(--estimate)", "var(--limit)")


def accuracy_figure(target: TargetReport, metric: str) -> Figure:
    """The metric of all candidates against predicted latency, with the front and the budget line."""
    others = [point for point in target.candidates if not point.winner]
    winners = [point for point in target.candidates if point.winner]
    front = pareto_front(target.candidates)
    limit = target.limit_ns / _NS_PER_MS
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "meta": "line",
            "x": [point.predicted.value_ns / _NS_PER_MS for point in front],
            "y": [100 * point.accuracy for point in front],
            "line": {"shape": "hv", "width": 1.5, "color": "var(--muted)"},
            "hoverinfo": "skip",
        },
        _candidates("candidate (estimate)", others, "var(--estimate)", 9, metric),
        _candidates("winner (estimate)", winners, "var(--measured)", 14, metric),
    ]
    layout = plain_layout("predicted latency, ms (estimate)", f"validation {metric}, %")
    layout["yaxis"] |= _PERCENT
    layout["shapes"] = [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": limit,
            "x1": limit,
            "y0": 0,
            "y1": 1,
            "line": {"color": "var(--limit)", "width": 1.5, "dash": "dash"},
        }
    ]
    layout["annotations"] = [
        {
            "x": limit,
            "y": 0,
            "yref": "paper",
            "xanchor": "left",
            "yanchor": "bottom",
            "xshift": 4,
            "showarrow": False,
            "text": f"budget {limit:#.4g} ms",
            "font": {"color": "var(--limit)"},
        }
    ]
    return {"data": traces, "layout": layout}


def comparison_figure(comparisons: Sequence[ComparedNetwork]) -> Figure:
    """Predicted against measured latency with both intervals and the identity line."""
    ends = [
        end / _NS_PER_MS
        for each in comparisons
        for end in (
            each.predicted.low_ns,
            each.predicted.high_ns,
            each.measured.low_ns,
            each.measured.high_ns,
        )
    ]
    low, high = min(ends), max(ends)
    margin = 0.05 * (high - low or high)
    span = [max(0.0, low - margin), high + margin]
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "predicted exactly",
            "meta": "line",
            "x": span,
            "y": span,
            "line": {"color": "var(--muted)", "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
        }
    ]
    for name, fitted, symbol in (
        ("used to fit the predictor", True, "diamond"),
        ("not used to fit", False, "circle"),
    ):
        group = [each for each in comparisons if each.fitted is fitted]
        if group:
            traces.append(_compared(name, group, symbol))
    layout = plain_layout("measured latency, ms", "predicted latency, ms (estimate)")
    layout["xaxis"]["range"], layout["yaxis"]["range"] = span, span
    return {"data": traces, "layout": layout}


def blocks_figure(networks: Sequence[BlockLatencies]) -> Figure:
    """Measured latency of every block as horizontal bars, first block on top, one group per network."""
    labels: list[str] = []
    traces = []
    for network, colour in zip(networks, itertools.cycle(_COLOURS), strict=False):
        start = len(labels)
        labels += [label for label, _ in network.blocks]
        values = [interval.value_ns / _NS_PER_MS for _, interval in network.blocks]
        traces.append(
            {
                "type": "bar",
                "meta": "bar",
                "orientation": "h",
                "name": f"{_plain(network.network)} (measured)",
                "x": values,
                "y": list(range(start, len(labels))),
                "marker": {"color": colour},
                "error_x": _error(
                    values,
                    [interval.low_ns / _NS_PER_MS for _, interval in network.blocks],
                    [interval.high_ns / _NS_PER_MS for _, interval in network.blocks],
                ),
                "text": [f"{_plain(label)}<br>{_plain(str(interval))}" for label, interval in network.blocks],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
        labels.append("")
    layout = plain_layout("measured latency, ms", "")
    layout["xaxis"]["rangemode"] = "tozero"
    _label_rows(layout, labels)
    return {"data": traces, "layout": layout}


def mixtures_figure(mixtures: Sequence[LayerMixture]) -> Figure:
    """Share of every layer as horizontal bars, first layer on top, one group per size."""
    labels: list[str] = []
    traces = []
    for mixture, colour in zip(mixtures, itertools.cycle(_COLOURS), strict=False):
        start = len(labels)
        labels += mixture.layers
        traces.append(
            {
                "type": "bar",
                "meta": "bar",
                "orientation": "h",
                "name": f"maps of {mixture.size[0]}x{mixture.size[1]}",
                "x": [100 * share for share in mixture.shares],
                "y": list(range(start, len(labels))),
                "marker": {"color": colour},
                "hovertemplate": "%{x:.1f} %<extra></extra>",
            }
        )
        labels.append("")
    layout = plain_layout("share of the mixture, %", "")
    layout["xaxis"]["rangemode"] = "tozero"
    _label_rows(layout, labels)
    return {"data": traces, "layout": layout}


def curves_figure(curves: Sequence[TrainingCurve], quantity: str, metric: str) -> Figure:
    """Training curves, the last first: validation ``accuracy`` by a metric in per cent, or ``loss``."""
    traces = []
    for curve, colour in zip(reversed(curves), itertools.cycle(_COLOURS), strict=False):
        values = (
            [100 * each for each in curve.validation_accuracy] if quantity == "accuracy" else curve.train_loss
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": _plain(curve.network),
                "meta": "line",
                "x": list(range(1, len(values) + 1)),
                "y": list(values),
                "line": {"color": colour, "width": 2},
                "hovertemplate": "epoch %{x}: %{y:.4g}<extra></extra>",
            }
        )
    layout = plain_layout("epoch", f"validation {metric}, %" if quantity == "accuracy" else "training loss")
    layout["yaxis"] |= _PERCENT if quantity == "accuracy" else {}
    return {"data": traces, "layout": layout}


def _label_rows(layout: dict[str, Any], labels: Sequence[str]) -> None:
    """One row for each label, the first on top."""
    layout["height"] = 90 + 22 * len(labels)
    layout["bargap"] = 0.3
    layout["yaxis"] |= {
        "autorange": "reversed",
        "tickmode": "array",
        "tickvals": list(range(len(labels))),
        "ticktext": [_plain(_shortened(label)) for label in labels],
        "showgrid": False,
        "automargin": True,
    }


def _candidates(
    name: str, points: Sequence[CandidatePoint], colour: str, size: int, metric: str
) -> dict[str, Any]:
    spreads = [100 * (point.spread or 0.0) for point in points]
    return {
        "type": "scatter",
        "mode": "markers",
        "cliponaxis": False,
        "name": name,
        "meta": "hollow",
        "x": [point.predicted.value_ns / _NS_PER_MS for point in points],
        "y": [100 * point.accuracy for point in points],
        "error_y": {"array": spreads, "color": colour, "thickness": 0.6, "width": 0, "visible": any(spreads)},
        "marker": {"symbol": "circle-open", "size": size, "color": colour, "line": {"width": 1.8}},
        "text": [
            f"{_wrapped(point.architecture)}<br>estimate {_plain(str(point.predicted))}<br>"
            f"{metric} {100 * point.accuracy:.2f} %"
            for point in points
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _compared(name: str, group: Sequence[ComparedNetwork], symbol: str) -> dict[str, Any]:
    colour = "var(--other)" if symbol == "diamond" else "var(--measured)"
    x = [each.measured.value_ns / _NS_PER_MS for each in group]
    y = [each.predicted.value_ns / _NS_PER_MS for each in group]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "meta": symbol,
        "x": x,
        "y": y,
        "error_x": _error(
            x,
            [each.measured.low_ns / _NS_PER_MS for each in group],
            [each.measured.high_ns / _NS_PER_MS for each in group],
        ),
        "error_y": _error(
            y,
            [each.predicted.low_ns / _NS_PER_MS for each in group],
            [each.predicted.high_ns / _NS_PER_MS for each in group],
        ),
        "marker": {"symbol": symbol, "size": 8, "color": colour},
        "text": [
            f"{_wrapped(each.name)}<br>measured {_plain(str(each.measured))}<br>"
            f"estimate {_plain(str(each.predicted))}"
            for each in group
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _error(values: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for high, value in zip(highs, values, strict=True)],
        "arrayminus": [value - low for low, value in zip(lows, values, strict=True)],
        "color": "var(--muted)",
        "thickness": 1,
        "width": 3,
    }


def plain_layout(x_title: str, y_title: str) -> dict[str, Any]:
    """The layout that all plots share."""

    def axis(title: str) -> dict[str, Any]:
        return {
            "title": {"text": title, "standoff": 10},
            "gridcolor": "var(--grid)",
            "linecolor": "var(--line)",
            "zeroline": False,
            "ticks": "outside",
            "tickcolor": "var(--line)",
            "automargin": True,
        }

    return {
        "xaxis": axis(x_title),
        "yaxis": axis(y_title),
        "margin": {"l": 55, "r": 15, "t": 10, "b": 50},
        "height": 380,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--text)"},
        "hoverlabel": {"align": "left"},
        "showlegend": False,
    }


def _plain(text: str) -> str:
    """Text that plotly shows as it is: plotly reads a little HTML in labels."""
    return html.escape(text, quote=False)


def _wrapped(text: str, width: int = 60) -> str:
    """Escaped text, broken at spaces for a hover label."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(_plain(line) for line in lines)


def _shortened(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"


def key_of(figure: Figure) -> list[tuple[str, str, str]]:
    """Shape, colour and name (HTML text) of every trace, in the order they are drawn."""
    return [
        (trace["meta"], trace["line" if trace["meta"] == "line" else "marker"]["color"], trace["name"])
        for trace in figure["data"]
        if len(trace["x"])
    ]
