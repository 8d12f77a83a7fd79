"""Graphs as drawings in HTML: boxes in the order that data flow, in frames, in strips beside each other."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_MARGIN, _PADDING, _LABEL, _GUTTER = 10, 8, 18, 24
_SIGN = 18
"""Height of a sign, which is as wide."""
_LANE = 8
"""How far beside a box passes what goes round it."""
_LEAST_TALL = 300


@dataclass(frozen=True)
class Box:
    """One node of a graph.

    Attributes:
        title: its text. One without a note that has 1 or 2 characters is a sign in a circle.
        note: a second line.
        hover: what is told where the pointer rests on it.
        after: positions of those that it follows, counted through all frames.
        style: CSS class.
        filled: share of its width that is coloured, 0..1.
        shade: how strong that colour is, 0..1.
    """

    title: str
    note: str
    hover: str
    after: tuple[int, ...]
    style: str
    filled: float = 0.0
    shade: float = 1.0

    @property
    def is_sign(self) -> bool:
        """Whether it is drawn as a circle."""
        return not self.note and len(self.title) <= 2


@dataclass(frozen=True)
class Frame:
    """Boxes that belong together. One without a style is not drawn, nor are its label and note."""

    boxes: tuple[Box, ...]
    label: str = ""
    note: str = ""
    hover: str = ""
    style: str = ""


@dataclass(frozen=True)
class Grid:
    """Size of a box in pixels, the steps from one to the next, and how many characters a line of it takes."""

    width: int
    height: int
    across: int
    down: int
    longest: int


@dataclass(frozen=True)
class _Spot:
    """Where a box lies: centre, top and bottom, in pixels, and column and row in its frame."""

    x: float
    top: float
    bottom: float
    column: int
    row: int


@dataclass(frozen=True)
class _Laid:
    """A frame with columns and rows of its boxes, and tops of the rows below its own top."""

    frame: Frame
    first: int
    places: tuple[tuple[int, int], ...]
    tops: tuple[float, ...]
    width: float
    height: float


def drawing(frames: Sequence[Frame], grid: Grid, page_width: int | None = None) -> str:
    """The graph as SVG: in each frame rows by the longest way from what enters it, frames below each other.

    Args:
        frames: in an order in which each box stands behind those it follows.
        grid: measures.
        page_width: in pixels; frames go on in a new strip beside the last so that the drawing is about as
            wide. ``None`` for one strip.
    """
    laid, first = [], 0
    for frame in frames:
        laid.append(_laid(frame, first, grid))
        first += len(frame.boxes)
    placed = list(zip(laid, _corners(laid, page_width, grid), strict=True))
    boxes = [box for frame in frames for box in frame.boxes]
    spots = [spot for each, (left, top) in placed for spot in _spots(each, left, top, grid)]
    parts = [_drawn_frame(each, left, top) for each, (left, top) in placed if each.frame.style]
    parts += [edge for each, (left, top) in placed for edge in _edges(each, left, top, spots, grid)]
    parts += [_label(each, left, top, grid) for each, (left, top) in placed if each.frame.style]
    parts += [_drawn_box(box, spot, grid) for box, spot in zip(boxes, spots, strict=True)]
    width = _MARGIN + max((left + each.width for each, (left, _) in placed), default=0)
    height = _MARGIN + max((top + each.height for each, (_, top) in placed), default=0)
    return (
        f'<div class="graph"><svg width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" '
        f'role="img">{"".join(parts)}</svg></div>'
    )


def _laid(frame: Frame, first: int, grid: Grid) -> _Laid:
    places = _places(frame.boxes, first)
    columns = 1 + max((column for column, _ in places), default=0)
    rows = 1 + max((row for _, row in places), default=0)
    high = [
        max(
            (
                _SIGN if box.is_sign else grid.height
                for box, place in zip(frame.boxes, places, strict=True)
                if place[1] == row
            ),
            default=grid.height,
        )
        for row in range(rows)
    ]
    gap = grid.down - grid.height
    above = _LABEL + gap if frame.style else 0
    tops = [above + sum(high[:row]) + row * gap for row in range(rows)]
    return _Laid(
        frame,
        first,
        tuple(places),
        tuple(tops),
        (columns - 1) * grid.across + grid.width + 2 * (_PADDING + _LANE),
        tops[-1] + high[-1] + _PADDING,
    )


def _places(boxes: Sequence[Box], first: int) -> list[tuple[int, int]]:
    """Column and row of each: below all that it follows, in the first one's column if that is free."""
    places: list[tuple[int, int]] = []
    taken: set[tuple[int, int]] = set()
    for box in boxes:
        above = [places[source - first] for source in box.after if 0 <= source - first < len(places)]
        row = 1 + max((row for _, row in above), default=-1)
        column = above[0][0] if above else 0
        while (column, row) in taken:
            column += 1
        taken.add((column, row))
        places.append((column, row))
    return places


def _corners(laid: Sequence[_Laid], page_width: int | None, grid: Grid) -> Iterator[tuple[float, float]]:
    """Left and top of each frame."""
    gap = grid.down - grid.height
    # The lowest strips that the page has room for beside each other; frames are never parted.
    tall = float("inf") if page_width is None else _LEAST_TALL
    strips = list(_strips(laid, tall, gap))
    while len(strips) > 1 and page_width is not None and _width(strips) > page_width:
        tall += grid.down / 2
        strips = list(_strips(laid, tall, gap))
    left = float(_MARGIN)
    for strip in strips:
        top = float(_MARGIN)
        for each in strip:
            yield left, top
            top += each.height + gap
        left += _GUTTER + max(each.width for each in strip)


def _strips(laid: Sequence[_Laid], tall: float, gap: float) -> Iterator[list[_Laid]]:
    """Frames below each other, no higher than that but for single ones."""
    strip: list[_Laid] = []
    for each in laid:
        if strip and sum(other.height + gap for other in strip) + each.height > tall:
            yield strip
            strip = []
        strip.append(each)
    if strip:
        yield strip


def _width(strips: Sequence[Sequence[_Laid]]) -> float:
    return 2 * _MARGIN + sum(_GUTTER + max(each.width for each in strip) for strip in strips) - _GUTTER


def _spots(laid: _Laid, left: float, top: float, grid: Grid) -> Iterator[_Spot]:
    for box, (column, row) in zip(laid.frame.boxes, laid.places, strict=True):
        x = left + _PADDING + column * grid.across + grid.width / 2
        y = top + laid.tops[row]
        yield _Spot(x, y, y + (_SIGN if box.is_sign else grid.height), column, row)


def _edges(laid: _Laid, left: float, top: float, spots: Sequence[_Spot], grid: Grid) -> Iterator[str]:
    """Those that end in a frame; what comes from outside enters at one point, and parts below the label."""
    below = top + (_LABEL if laid.frame.style else 0)
    entry = _Spot(left + _PADDING + grid.width / 2, top, below, 0, -1)
    entering: set[int] = set()
    occupied = set(laid.places)
    for position, box in enumerate(laid.frame.boxes, start=laid.first):
        for source in box.after:
            inside = 0 <= source - laid.first < len(laid.places)
            if not inside:
                entering.add(source)
            yield _edge(spots[source] if inside else entry, spots[position], box.is_sign, occupied, grid)
    for source in sorted(entering):
        yield _link(spots[source], entry, grid)
    if entering:
        yield _path(f"M{entry.x:g} {entry.top:g}V{entry.bottom:g}")


def _edge(start: _Spot, end: _Spot, to_sign: bool, occupied: set[tuple[int, int]], grid: Grid) -> str:
    bend = (grid.down - grid.height) / 2
    between = any((start.column, row) in occupied for row in range(start.row + 1, end.row))
    if not between:
        return _path(
            f"M{start.x:g} {start.bottom:g}V{end.top - 2 * bend:g}C{start.x:g} {end.top:g} "
            f"{end.x:g} {end.top - 2 * bend:g} {end.x:g} {end.top:g}"
        )
    # Round what lies between, on the right.
    lane = start.x + grid.width / 2 + _LANE
    y = start.bottom
    begun = f"M{start.x:g} {y:g}C{start.x:g} {y + bend:g} {lane:g} {y:g} {lane:g} {y + 2 * bend:g}"
    if to_sign:
        middle = (end.top + end.bottom) / 2
        return _path(
            f"{begun}V{middle - _LANE:g}Q{lane:g} {middle:g} {lane - _LANE:g} {middle:g}"
            f"H{end.x + _SIGN / 2:g}"
        )
    return _path(
        f"{begun}V{end.top - 2 * bend:g}C{lane:g} {end.top:g} {end.x:g} {end.top - bend:g} "
        f"{end.x:g} {end.top:g}"
    )


def _link(start: _Spot, end: _Spot, grid: Grid) -> str:
    """From a box to the top of another frame, which may be in the next strip."""
    if end.top >= start.bottom:
        bend = (grid.down - grid.height) / 2
        return _path(
            f"M{start.x:g} {start.bottom:g}C{start.x:g} {start.bottom + bend:g} "
            f"{end.x:g} {end.top - bend:g} {end.x:g} {end.top:g}"
        )
    gutter = end.x - grid.width / 2 - _PADDING - _GUTTER / 2
    low, high = start.bottom + _PADDING / 2, end.top - _MARGIN / 2
    return _path(f"M{start.x:g} {start.bottom:g}V{low:g}H{gutter:g}V{high:g}H{end.x:g}V{end.top:g}")


def _path(steps: str) -> str:
    return f'<path class="edge" d="{steps}"/>'


def _drawn_frame(laid: _Laid, left: float, top: float) -> str:
    frame = laid.frame
    return (
        f'<g class="frame {frame.style}"><title>{html.escape(frame.hover)}</title>'
        f'<rect x="{left:g}" y="{top:g}" width="{laid.width:g}" height="{laid.height:g}" rx="6"/></g>'
    )


def _label(laid: _Laid, left: float, top: float, grid: Grid) -> str:
    frame = laid.frame
    room = grid.longest + 4 - len(frame.note)
    right = left + laid.width - _PADDING
    return (
        f'<g class="frame {frame.style}"><title>{html.escape(frame.hover)}</title>'
        f'<text x="{left + _PADDING:g}" y="{top + 14:g}">{html.escape(_cut(frame.label, room))}</text>'
        f'<text class="note" x="{right:g}" y="{top + 14:g}" text-anchor="end">'
        f"{html.escape(frame.note)}</text></g>"
    )


def _drawn_box(box: Box, spot: _Spot, grid: Grid) -> str:
    title = f"<title>{html.escape(box.hover)}</title>"
    if box.is_sign:
        middle, radius = (spot.top + spot.bottom) / 2, _SIGN / 2
        return (
            f'<g class="{box.style}">{title}<circle cx="{spot.x:g}" cy="{middle:g}" r="{radius:g}"/>'
            f'<text x="{spot.x:g}" y="{middle + 4:g}" text-anchor="middle">'
            f"{html.escape(box.title)}</text></g>"
        )
    left = spot.x - grid.width / 2
    place = f'x="{left:g}" y="{spot.top:g}" height="{grid.height}" rx="4"'
    filled = (
        f'<rect class="fill" {place} width="{grid.width * box.filled:.1f}" fill-opacity="{box.shade:.2f}"/>'
        if box.filled
        else ""
    )
    return (
        f'<g class="{box.style}">{title}<rect class="back" {place} width="{grid.width}"/>{filled}'
        f'<text x="{left + 8:g}" y="{spot.top + grid.height / 2 + (-3 if box.note else 4):g}">'
        f"{html.escape(_cut(box.title, grid.longest))}</text>"
        f'<text class="note" x="{left + 8:g}" y="{spot.top + grid.height / 2 + 11:g}">'
        f"{html.escape(box.note)}</text></g>"
    )


def _cut(text: str, longest: int) -> str:
    """A text without its beginning where it is too long: names differ at their ends."""
    return text if len(text) <= longest else "…" + text[len(text) - longest + 1 :]
