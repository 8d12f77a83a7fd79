"""A page of HTML: all text escaped, style, plots and plotly.js inside, nothing loaded from anywhere."""

from __future__ import annotations

import html
import importlib.resources
import json
import string
from collections.abc import Iterable
from pathlib import Path

from pipeline.report.figures import Figure, key_of
from pipeline.work.disk import disk_errors, write_atomically


def written(page: str, path: Path) -> Path:
    """Write a page; atomic.

    Raises:
        WorkFolderError: the file cannot be written, or the disk is full.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page.encode())
    return path


def document(title: str, body: str) -> str:
    """A page by its title (text) and body (HTML)."""
    files = importlib.resources.files("pipeline.report")
    return string.Template((files / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        css=(files / "page.css").read_text(encoding="utf-8"),
        body=body,
        plotly=(files / "plotly" / "plotly-basic.min.js").read_text(encoding="utf-8"),
    )


def section(title: str, note: str, plots: list[str], style: str = "panels") -> str:
    """Plots under a title (HTML) and a note (HTML); empty where there are none."""
    if not plots:
        return ""
    panels = "\n".join(plots)
    return (
        f'<section><h2>{title}</h2>\n<p class="note">{note}</p>\n'
        f'<div class="{style}">\n{panels}\n</div></section>'
    )


def plot(name: str, title: str, figure: Figure) -> str:
    """A plot with its title and key; the name is unique in its document."""
    # A "<" could end the script element; in JSON it can only stand inside a string, where \u003c is the same.
    data = json.dumps(figure, allow_nan=False).replace("<", "\\u003c")
    key = "".join(
        f'<span><i class="{shape}" style="--ink: {colour}"></i>{text}</span>'
        for shape, colour, text in key_of(figure)
    )
    return (
        f'<div class="panel"><h3>{html.escape(title)}</h3><p class="key">{key}</p>'
        f'<div class="plot" id="{name}"></div>'
        f'<script type="application/json" id="{name}-data">{data}</script></div>'
    )


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of a name and a value, both HTML."""
    cells = "\n".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return f"<table>\n{cells}\n</table>"
