"""Drawings of graphs, read back as the places of their boxes and the ends of their edges."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.report.graph import Box, Frame, Grid, drawing

GRID = Grid(width=100, height=30, across=120, down=40, longest=12)


def box(title: str, *after: int) -> Box:
    return Box(title, "note", title, after, "box")


def sign(*after: int) -> Box:
    return Box("+", "", "sum", after, "box")


def chain(count: int, boxes: int = 3) -> list[Frame]:
    """Frames one after the other, each of boxes one after the other."""
    return [
        Frame(
            tuple(
                box(f"{frame}.{place}", *([position - 1] if (position := frame * boxes + place) else []))
                for place in range(boxes)
            ),
            label=f"frame{frame}",
            style="unit",
        )
        for frame in range(count)
    ]


def places(drawn: str) -> list[tuple[float, float]]:
    """Left and top of every box."""
    return [
        (float(x), float(y)) for x, y in re.findall(r'<rect class="back" x="([\d.]+)" y="([\d.]+)"', drawn)
    ]


def size(drawn: str) -> tuple[float, float]:
    (found,) = re.findall(r'<svg width="([\d.]+)" height="([\d.]+)"', drawn)
    return float(found[0]), float(found[1])


def edges(drawn: str) -> list[str]:
    return re.findall(r'class="edge" d="([^"]+)"', drawn)


def drawn_frames(frames: Sequence[Frame], page_width: int | None = None) -> str:
    return drawing(frames, GRID, page_width)


def test_boxes_stand_below_those_they_follow_and_beside_those_they_do_not() -> None:
    first, left, right, last = places(
        drawn_frames([Frame((box("a"), box("b", 0), box("c", 0), box("d", 1, 2)))])
    )
    assert first[1] < left[1] == right[1] < last[1]
    assert left[0] == first[0] == last[0] < right[0]


def test_what_goes_round_a_box_is_drawn_beside_it() -> None:
    drawn = drawn_frames([Frame((box("a"), box("b", 0), sign(1, 0)))])
    right = places(drawn)[0][0] + GRID.width
    (round_it,) = [each for each in edges(drawn) if "Q" in each]
    assert len(edges(drawn)) == 3
    assert max(float(x) for x in re.findall(r"([\d.]+) [\d.]+", round_it)) > right


def test_a_shortcut_that_enters_a_frame_from_outside_is_drawn_in_it() -> None:
    frames = [
        Frame((box("a"),), style="unit"),
        Frame((box("b", 0), sign(1, 0)), style="unit"),
    ]
    drawn = drawn_frames(frames)
    # From a to the frame, below its label, from there to b and to the sum, and from b to the sum.
    assert len(edges(drawn)) == 5


def test_frames_go_on_in_strips_that_the_page_has_room_for() -> None:
    frames = chain(27)
    tall_width, tall = size(drawn_frames(frames))
    width, height = size(drawn_frames(frames, 1000))
    assert tall_width < width <= 1000
    assert height < tall / 5
    ours = places(drawn_frames(frames, 1000))
    assert len(ours) == len(set(ours)) == 81
    # In reading order: down a strip, then to the top of the next.
    assert ours == sorted(ours)


def test_a_page_too_narrow_for_two_strips_has_one() -> None:
    frames = chain(9)
    assert size(drawn_frames(frames, 10)) == size(drawn_frames(frames))


def test_small_graphs_are_not_folded() -> None:
    assert len({x for x, _ in places(drawn_frames(chain(2, boxes=1), 1000))}) == 1


def test_long_names_keep_their_ends_and_all_text_is_text() -> None:
    drawn = drawn_frames([Frame((box("<b>" + "encoder." * 5 + "last<"),), label="&<", style="unit")])
    assert "…coder.last&lt;" in drawn
    assert "<b>" not in drawn
    assert "&amp;&lt;" in drawn


def test_nothing_is_drawn_of_nothing() -> None:
    assert places(drawn_frames([], 1000)) == []
