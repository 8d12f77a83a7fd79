"""What ``lathe compile`` tells people, on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten

from rich.console import Console
from rich.table import Table
from rich.text import Text

from devices.errors import LatheError
from devices.measurement import BetweenBatches, quantile
from devices.requests import OperationProfile
from devices.words import count_of
from pipeline.cli.between import between_text
from pipeline.compile import CompiledModel, Fate, Raced, Row
from pipeline.progress import duration
from pipeline.work.folder import WorkFolder

_SHOWN = 3
_MOST_SAID = 160
"""Characters about one variant."""

Profiles = Mapping[str, tuple[OperationProfile, OperationProfile] | LatheError]


def show(
    found: CompiledModel, profiles: Profiles, folder: WorkFolder, bundle: Path | LatheError | None = None
) -> None:
    """A table for each target, the choice, and what to mind."""
    console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 200)
    model, samples = found.model, found.samples
    shapes = [f"{each.name} {'x'.join(map(str, each.shape[1:]))}" for each in model.inputs]
    shape = shapes[0].partition(" ")[2] if len(shapes) == 1 else ", ".join(shapes)
    word = "input" if len(shapes) == 1 else "inputs"
    data = "random inputs" if samples.random else f"{samples.counts[0]} to calibrate"
    labels = "with labels" if samples.labelled else "without labels"
    held_out = "" if samples.random else f", {samples.counts[1]} held out {labels}"
    console.print(f"{model.name}, {model.format}, {word} {shape}; {data}{held_out}", soft_wrap=True)
    for place, raced in found.raced.items():
        console.print()
        _show_raced(console, raced, folder, samples.task.metric if samples.task is not None else "accuracy")
        profile = profiles.get(place)
        if isinstance(profile, LatheError):
            console.print(f"operations   {profile.what} ({profile.why})", soft_wrap=True)
        elif profile is not None:
            _show_operations(console, raced, *profile)
    if isinstance(bundle, LatheError):
        console.print(f"bundle       {bundle.what} ({bundle.why})", soft_wrap=True)
    elif bundle is not None:
        console.print(f"bundle       {bundle}", soft_wrap=True)
    if found.cached:
        console.print(f"\nnothing was new: found in {folder.path}", soft_wrap=True)
    else:
        console.print(f"\ntook {duration(found.seconds)}; kept in {folder.path}", soft_wrap=True)


def _show_raced(console: Console, raced: Raced, folder: WorkFolder, metric: str) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("variant", no_wrap=True)
    for name in (
        "latency, ms",
        "on this machine, ms",
        "of baseline",
        metric,
        "parity",
        "size, kB",
        "load, ms",
        "memory, MB",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in raced.rows:
        if row.fate is not Fate.LEFT_OUT:
            table.add_row(*_cells(row, raced))
    console.print(f"{raced.place}", soft_wrap=True)
    console.print(table)
    if raced.between is not None:
        console.print(f"batches      {between_text(raced.between)}", soft_wrap=True)
    left_out: dict[str, list[str]] = {}
    for row in raced.rows:
        if row.fate is Fate.LEFT_OUT:
            left_out.setdefault(row.why, []).append(row.name)
    for why, names in left_out.items():
        shown = ", ".join(names[:_SHOWN]) + (
            f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        )
        console.print(f"not tried    {shown}: {why}", soft_wrap=True)
    for warning in raced.warnings:
        console.print(f"mind         {warning}", soft_wrap=True)
    for warning in raced.row(raced.chosen).warnings if raced.chosen is not None else ():
        console.print(f"mind         {raced.chosen}: {warning}", soft_wrap=True)
    for tuned in dict.fromkeys(row.notes["fine_tuned"] for row in raced.rows if "fine_tuned" in row.notes):
        console.print(f"tuned        {tuned}", soft_wrap=True)
    for fmt, layers in raced.sensitivity.items():
        worst = ", ".join(f"{each.name} {each.ratio_db:.0f} dB" for each in layers[:_SHOWN])
        rest = f" ({len(layers) - _SHOWN} more are above)" if len(layers) > _SHOWN else ""
        console.print(
            f"sensitive    alone in int8, signal over noise of the outputs, {fmt}: {worst}{rest}",
            soft_wrap=True,
        )
    console.print(f"front        {', '.join(raced.front)}", soft_wrap=True)
    console.print(f"choice       {raced.reason}", soft_wrap=True)
    if raced.chosen is not None and (file := raced.row(raced.chosen).file) is not None:
        console.print(f"file         {folder.find(file)}", soft_wrap=True)


def _cells(row: Row, raced: Raced) -> tuple[Text | str, ...]:
    mark = "chosen" if row.name == raced.chosen else "front" if row.name in raced.front else ""
    if row.name == raced.baseline:
        mark = ", ".join(filter(None, ("baseline", mark)))
    quality, measurement = row.quality, row.measurement
    loads = [launch.load_ns for launch in measurement.counted] if measurement is not None else []
    known = [each for each in loads if each is not None]
    return (
        Text(row.name),
        _latency(row),
        _on_device(row, raced.between),
        "" if row.ratio is None else f"{row.ratio.value:.2f}x",
        _accuracy(row),
        "" if quality is None or quality.max_rel is None else f"{quality.max_rel:.1e}",
        "" if row.size_bytes is None else f"{row.size_bytes / 1000:.0f}",
        f"{quantile(known, 0.5) / 1e6:.1f}" if known else "",
        "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:.0f}",
        Text("; ".join(filter(None, (mark, said(row))))),
    )


def said(row: Row) -> str:
    """What became of a variant and why, cut behind a word where it is long; ``--json`` has all of it."""
    fate = row.fate.value if row.fate is not Fate.MEASURED else ""
    return shorten(f"{fate} {row.why}", _MOST_SAID, placeholder=" ...")


def _latency(row: Row) -> str:
    if row.latency_ms is None:
        return ""
    doubt = "" if row.measurement is None or row.measurement.verdict.value == "valid" else "?"
    return f"{row.latency_ms:.4g}{doubt}"


def _on_device(row: Row, between: BetweenBatches | None) -> str:
    """What the same measurement gives at another time, from low to high."""
    if row.measurement is None:
        return ""
    wide = row.measurement.on_device(between)
    return f"{wide.low_ns / 1e6:.4g} to {wide.high_ns / 1e6:.4g}"


def _accuracy(row: Row) -> str:
    quality = row.quality
    if quality is None:
        return ""
    if quality.accuracy is not None:
        return f"{quality.accuracy:.2%}"
    return "" if quality.agreement is None else f"same {quality.agreement:.2%}"


def _show_operations(
    console: Console, raced: Raced, before: OperationProfile, after: OperationProfile
) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("operation", "before, ms", "count", "after, ms", "count"):
        table.add_column(name, justify="left" if name == "operation" else "right")
    groups = [{group.kind: group for group in profile.by_kind()} for profile in (before, after)]
    for kind in sorted(
        groups[0].keys() | groups[1].keys(),
        key=lambda kind: -max(each[kind].time_ns for each in groups if kind in each),
    ):
        cells = [
            (f"{each[kind].time_ns / 1e6:.4f}", str(each[kind].count)) if kind in each else ("", "")
            for each in groups
        ]
        table.add_row(kind, *cells[0], *cells[1])
    chosen = raced.chosen or raced.baseline
    kinds = count_of(len(after.operations), "operation")
    console.print(f"operations   of {raced.baseline} and of {chosen}, which has {kinds}", soft_wrap=True)
    console.print(table)
