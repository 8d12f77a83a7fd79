"""The page of ``lathe profile``: latencies at every size of a sweep, and the graph with times."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from devices.artifacts import onnx_facts
from devices.measurement import BetweenBatches, InputUse, Measurement
from devices.requests import OperationProfile
from devices.result_file import Entry
from devices.words import count_of
from pipeline.report.document import document, plot, section, table, written
from pipeline.report.figures import Figure, plain_layout
from pipeline.report.operations import MOST_DRAWN, drawn_chain, drawn_graph, drawn_operations

Between = Callable[[Measurement], BetweenBatches]
"""What is known of the batches of a measurement's device."""

R = TypeVar("R", Measurement, OperationProfile)

_NS_PER_MS = 1e6
_SWEEP_NOTE = (
    "Each size was measured in the same launches. The thick bar is the interval here and now, the thin one "
    "that on this machine, which holds at another time too."
)
_CHAIN_NOTE = "What takes what is read from .onnx files alone; here operations stand as they ran."


def render_profile(entries: Sequence[Entry], between: Between, path: Path) -> Path:
    """Write the page of what was profiled as one HTML file that works offline; atomic.

    Args:
        entries: results in order.
        between: how far batches differ on the device of a measurement.
        path: of the file.

    Raises:
        WorkFolderError: the file cannot be written, or the disk is full.
    """
    return written(profile_page(entries, between), path)


def profile_page(entries: Sequence[Entry], between: Between) -> str:
    """The page as HTML text."""
    rows: list[tuple[str, str]] = []
    sweeps: list[str] = []
    measured = _groups(entries, Measurement)
    for (model, target), group in measured.items():
        where = html.escape(f"{Path(model).name} on {target}")
        rows += [(f"{where}<br><small>{_shapes(each)}</small>", _words(each, between)) for each in group]
        if len(group) > 1:
            figure = sweep_figure(group, between)
            sweeps.append(plot(f"sweep-{len(sweeps)}", f"{Path(model).name} on {target}", figure))
    graphs = [
        _graph(Path(model), profile, shapes)
        for (model, target), group in _groups(entries, OperationProfile).items()
        for profile, shapes in zip(group, _told(measured.get((model, target), []), len(group)), strict=True)
    ]
    body = f'<h1>Profile</h1>\n<div class="panel">{table(rows)}</div>\n'
    return document("Profile", body + section("Latency by size", _SWEEP_NOTE, sweeps) + "\n".join(graphs))


def sweep_figure(measurements: Sequence[Measurement], between: Between) -> Figure:
    """Latencies with both intervals over what differs in their inputs."""
    name, sizes = varying(measurements)
    wide = [measurement.on_device(between(measurement)) for measurement in measurements]
    narrow = [measurement.latency for measurement in measurements]
    traces = [
        {
            "type": "scatter",
            "mode": mode,
            "name": title,
            "meta": key,
            "x": sizes,
            "y": [each.value_ns / _NS_PER_MS for each in intervals],
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [(each.high_ns - each.value_ns) / _NS_PER_MS for each in intervals],
                "arrayminus": [(each.value_ns - each.low_ns) / _NS_PER_MS for each in intervals],
                "thickness": thickness,
                "color": colour,
            },
            "line": {"width": 1, "color": colour},
            "marker": {"size": 8, "color": colour},
            "text": [f"{each} {words}" for each in intervals],
            "hovertemplate": "%{x}: %{text}<extra></extra>",
        }
        for title, key, mode, intervals, thickness, colour, words in (
            ("on this machine", "line", "markers", wide, 1, "var(--muted)", "on this machine"),
            ("here and now", "circle", "lines+markers", narrow, 4, "var(--measured)", "here and now"),
        )
    ]
    layout: dict[str, Any] = plain_layout(name, "latency, ms")
    layout["yaxis"]["rangemode"] = "tozero"
    if not all(isinstance(size, int) for size in sizes):
        layout["xaxis"]["type"] = "category"
    return {"data": traces, "layout": layout}


def varying(measurements: Sequence[Measurement]) -> tuple[str, list[int] | list[str]]:
    """What differs between the inputs of some measurements, and its values: one size, or whole shapes."""
    shapes = [{each.name: each.shape for each in measurement.inputs} for measurement in measurements]
    differing = {
        (name, axis)
        for name, first in (shapes[0] if shapes else {}).items()
        for axis in range(len(first))
        if len({shape.get(name, ())[axis : axis + 1] for shape in shapes}) > 1
    }
    alike = all(
        shape.keys() == shapes[0].keys() and all(len(shape[name]) == len(shapes[0][name]) for name in shape)
        for shape in shapes
    )
    if alike and len(differing) == 1:
        ((name, axis),) = differing
        return f"size {axis + 1} of {html.escape(name)}", [shape[name][axis] for shape in shapes]
    return "shapes", [_text(measurement.inputs) for measurement in measurements]


def _groups(entries: Sequence[Entry], kind: type[R]) -> dict[tuple[str, str], list[R]]:
    """Results of a kind by model and target."""
    found: dict[tuple[str, str], list[R]] = {}
    for entry in entries:
        if isinstance(entry.result, kind):
            found.setdefault((entry.models[0], entry.result.target), []).append(entry.result)
    return found


def _told(measurements: Sequence[Measurement], count: int) -> list[str]:
    """The shapes at which operations were timed, which is after the latencies and in their order."""
    told = len(measurements) == count > 1
    return [_text(each.inputs) for each in measurements] if told else [""] * count


def _words(measurement: Measurement, between: Between) -> str:
    wide = measurement.on_device(between(measurement))
    text = f"{measurement.latency} here and now, {wide.ends} on this machine"
    return f"{html.escape(text)}<br><small>{html.escape(measurement.verdict.value)}</small>"


def _shapes(measurement: Measurement) -> str:
    return html.escape(_text(measurement.inputs))


def _text(inputs: Sequence[InputUse]) -> str:
    return ", ".join(f"{each.name} {'x'.join(map(str, each.shape))}" for each in inputs)


def _graph(model: Path, profile: OperationProfile, shapes: str) -> str:
    """The graph of a model with the times of its operations."""
    facts = onnx_facts(model)
    if facts is not None and facts.nodes:
        graph, others = drawn_graph(facts.nodes, profile.operations)
    else:
        graph, others = drawn_chain(profile.operations), []
    moving = sum(each.time_ns for each in others)
    notes = [f"Shares are of the operations' sum, {profile.sum_ns / _NS_PER_MS:.4f} ms while profiled."]
    if facts is None or not facts.nodes:
        notes.append(_CHAIN_NOTE)
    else:
        without = count_of(sum(each.time_ns is None for each in graph), "operation")
        notes.append(
            f"Without a time of its own: {without} of the file, which the runtime joined with others, "
            "removed, or runs under another name."
        )
    if others:
        kinds = ", ".join(sorted({each.kind for each in others}))
        notes.append(
            f"Under no name of the file: {count_of(len(others), 'operation')} of the runtime ({kinds}), "
            f"{moving / _NS_PER_MS:.4f} ms, {profile.share(moving):.1%}."
        )
    drawn = (
        drawn_operations(graph, profile.sum_ns)
        if len(graph) <= MOST_DRAWN
        else f"<p>{len(graph)} operations are too many to draw.</p>"
    )
    title = html.escape(" ".join(filter(None, (model.name, shapes, "on", profile.target, "by operation"))))
    return section(title, html.escape(" ".join(notes)), [drawn], "")
