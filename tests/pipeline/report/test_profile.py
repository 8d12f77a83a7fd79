from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from devices.artifacts import OnnxNode
from devices.measurement import InputUse, Measurement
from devices.requests import Operation, OperationProfile
from devices.result_file import Entry
from latency_db.history import PRIOR
from pipeline.report import render_profile
from pipeline.report.operations import drawn_chain, drawn_graph, drawn_operations
from pipeline.report.profile import profile_page, sweep_figure, varying
from tests.devices.made_up import made_up_measurement

NODES = (
    OnnxNode("first", "Conv", ("x", "weight"), ("a",)),
    OnnxNode("bend", "Relu", ("a",), ("b",)),
    OnnxNode("last", "Add", ("b", "x"), ("y",)),
)


def at(*shape: int, name: str = "x", level: int = 1_000_000) -> Measurement:
    """A latency at a shape of its input."""
    found = made_up_measurement([[level] * 20] * 5)
    use = InputUse(name, "float32", shape, tuple(map(str, shape)), "random")
    return replace(found, launches=tuple(replace(each, inputs=(use,)) for each in found.launches))


def operation(name: str, kind: str, time_ns: int) -> Operation:
    return Operation(name, kind, "CPUExecutionProvider", (time_ns,) * 5)


def profiled(*operations: Operation) -> OperationProfile:
    found = at(1, 3)
    return OperationProfile(
        "ab" * 32, found.target, found.runtime, found.device, found.protocol, operations, (), found.started_at
    )


def test_a_sweep_is_drawn_over_the_one_size_that_differs() -> None:
    assert varying([at(1, 3, 32), at(1, 3, 64)]) == ("size 3 of x", [32, 64])
    name, shapes = varying([at(1, 3, 32), at(2, 3, 64)])
    assert (name, shapes) == ("shapes", ["x 1x3x32", "x 2x3x64"])
    assert varying([at(1, 3), at(1, 3, 3)])[0] == "shapes"


def test_the_plot_of_a_sweep_has_both_intervals() -> None:
    figure = sweep_figure([at(1, 32), at(1, 64, level=2_000_000)], lambda _: PRIOR)
    wide, narrow = figure["data"]
    assert wide["x"] == narrow["x"] == [32, 64]
    assert narrow["y"] == [1.0, 2.0]
    assert all(
        one > other for one, other in zip(wide["error_y"]["array"], narrow["error_y"]["array"], strict=True)
    )


def test_operations_find_their_nodes_by_name_or_by_what_they_give() -> None:
    operations = [
        operation("a_nchwc", "Conv", 3000),
        operation("last", "Add", 1000),
        operation("reorder", "ReorderOutput", 500),
    ]
    graph, others = drawn_graph(NODES, operations)
    assert [each.time_ns for each in graph] == [3000, None, 1000]
    assert [each.after for each in graph] == [(), (0,), (1,)]
    assert [each.kind for each in others] == ["ReorderOutput"]


def test_the_drawing_has_every_operation_with_its_time_and_its_connections() -> None:
    graph, _ = drawn_graph(NODES, [operation("b", "Relu", 750), operation("last", "Add", 250)])
    drawn = drawn_operations(graph, 1000)
    assert drawn.count('class="back"') == 3
    assert drawn.count('class="edge"') == 2
    assert "0.0008 ms, 75.0%" in drawn
    assert "no time of its own" in drawn


def test_names_from_a_file_are_text_on_the_page() -> None:
    hostile = OnnxNode("</svg><script>alert(1)</script>", "<b>", ("x",), ("y",))
    drawn = drawn_operations(drawn_graph([hostile], [])[0], 0)
    assert "<script>" not in drawn
    assert "<b>" not in drawn


def test_nodes_in_no_order_are_drawn_all_the_same() -> None:
    assert drawn_operations(drawn_graph(NODES[::-1], [])[0], 1).count('class="back"') == 3


def test_without_a_graph_operations_stand_in_their_order() -> None:
    graph = drawn_chain([operation("one", "Conv", 10), operation("two", "Mean", 20)])
    assert [each.after for each in graph] == [(), (0,)]
    assert drawn_operations([], 0).startswith("<div")


def test_the_page_shows_each_shape_and_the_graph_and_loads_nothing(tmp_path: Path) -> None:
    entries = [
        Entry(("net.tflite",), at(1, 32)),
        Entry(("net.tflite",), at(1, 64)),
        Entry(("net.tflite",), profiled(operation("conv", "Convolution", 900))),
        Entry(("net.tflite",), profiled(operation("conv", "Convolution", 1900))),
    ]
    page = render_profile(entries, lambda _: PRIOR, tmp_path / "page.html").read_text()
    assert "net.tflite x 1x64 on host/litert:fp32@1 by operation" in page
    assert "[0.9" in page
    assert "on this machine" in page
    (figure,) = re.findall(r'<script type="application/json" id="sweep-0-data">(.*?)</script>', page)
    assert json.loads(figure)["data"][0]["x"] == [32, 64]
    assert not re.findall(r"<(?:script|img)[^>]* src=|<link", page)


def test_one_shape_has_no_plot_of_a_sweep() -> None:
    assert "Latency by size" not in profile_page([Entry(("net.tflite",), at(1, 32))], lambda _: PRIOR)
