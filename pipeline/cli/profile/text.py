"""Results for people, on standard output."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from devices.artifacts import added, hints_of, open_inputs
from devices.measurement import (
    Conditions,
    Interval,
    Measurement,
    MeasurementFailure,
    Reason,
    Verdict,
    fed_alike,
    pooled_ns,
    sizes,
)
from devices.measuring import Comparison
from devices.requests import MOVING, OperationProfile, SustainedRun, Window
from devices.result_file import Entry
from devices.target import Target
from devices.words import count_of, listed
from pipeline.cli.between import between_text
from pipeline.cli.profile.documents import (
    Between,
    assumed,
    copies_ns,
    inferences,
    median_interval,
    peak_memory_bytes,
    phases_ns,
)

SHARES_HOLD = "a profiled run is slower: shares hold, the latency is the one without a profiler"
TOO_COARSE = (
    "a profiled run is slower; its clock counts in microseconds, and most of these operations take less: "
    "times and shares say little"
)
WORTH_A_HINT = 0.02
"""Part of a model's time that an operation takes about which something is said."""
MAX_OPERATIONS = 40
"""Operations that are shown, the most expensive first."""
MAX_INPUTS = 12
"""Inputs of a model that are shown."""
MAX_ROWS = 24
"""Windows of a sustained run that are shown; of a longer one every second, third and so on."""

Rows = list[tuple[str, str]]


def show(entries: Sequence[Entry], between: Between) -> None:
    """Print every result, and first an overview where several files were measured."""
    # A file or a pipe has no width of its own, and names of models are long.
    width = None if sys.stdout.isatty() else 120
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    measured = [entry for entry in entries if isinstance(entry.result, Measurement | MeasurementFailure)]
    if len(measured) > 1:
        console.print(_overview(measured, between))
        console.print("* on this machine: at another time too")
    for entry in entries:
        console.print()
        _show_entry(console, entry, between)


def printable(text: str) -> str:
    """The text with what a terminal would act on, or cannot show, written as an escape."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def _show_entry(console: Console, entry: Entry, between: Between) -> None:
    names = [printable(name) for name in entry.models]
    result = entry.result
    if isinstance(result, Comparison):
        console.print(f"{result.describe(*names)}, on {result.first.target}", soft_wrap=True)
        both = [each.inputs for each in (result.first, result.second) if isinstance(each, Measurement)]
        if len(both) == 2 and not fed_alike(*both):
            console.print(
                "NOTE: they were fed with inputs of different sizes, so they did not do the same work; "
                "give the sizes you use with --shape",
                soft_wrap=True,
            )
        for path, outcome in zip(entry.models, (result.first, result.second), strict=True):
            console.print(f"\n{printable(path)}", soft_wrap=True)
            _print_rows(console, [*_outcome_rows(outcome, between), *_hint_rows(path, outcome)])
        return
    console.print(f"{names[0]} on {result.target}", soft_wrap=True)
    match result:
        case OperationProfile():
            _show_operations(console, result, entry.models[0])
        case SustainedRun():
            console.print(_windows(result))
            _print_rows(console, _sustained_rows(result))
        case _:
            _print_rows(console, [*_outcome_rows(result, between), *_hint_rows(entry.models[0], result)])


def _hint_rows(path: str, outcome: Measurement | MeasurementFailure) -> Rows:
    """What the file shows beside its latency."""
    if isinstance(outcome, MeasurementFailure):
        return []
    rows = [
        ("hint", printable(hint.detail))
        for hint in hints_of(Path(path), Target.parse(outcome.target))
        if not hint.operation
    ]
    left_open = () if outcome.inputs else open_inputs(Path(path))
    if left_open:
        said = f"the file leaves {listed(left_open)} open; this target's tool chose sizes and does not tell"
        rows.insert(0, ("NOTE", printable(said)))
    return rows


def _overview(entries: Sequence[Entry], between: Between) -> Table:
    table = _table("model", "target", "latency, ms", "median, ms", "p90, ms", "verdict", figures=(2, 3, 4))
    files = [(entry.models, getattr(entry.result, "target", "")) for entry in entries]
    for entry, file in zip(entries, files, strict=True):
        result = entry.result
        name = Text(printable(entry.models[0]))
        if files.count(file) > 1 and isinstance(result, Measurement):
            name.append("".join(f"\n{printable(each.name)} {sizes(each.shape)}" for each in result.inputs))
        if isinstance(result, Measurement):
            latency, median = result.latency, median_interval(result)
            table.add_row(
                name,
                result.target,
                "\n".join((*_interval(latency).split(" ms "), f"{_ends(between(result).around(latency))}*")),
                _ms(None if median is None else median.value_ns),
                _ms(pooled_ns(result, 0.9)),
                _short_verdict(result),
            )
        elif isinstance(result, MeasurementFailure):
            table.add_row(name, result.target, "", "", "", f"failed: {result.reason.code}")
    return table


def _outcome_rows(outcome: Measurement | MeasurementFailure, between: Between) -> Rows:
    if isinstance(outcome, MeasurementFailure):
        return [("failed", _sentence(outcome.reason))]
    latency, median = outcome.latency, median_interval(outcome)
    count, level = len(outcome.counted), outcome.protocol.headline_quantile
    certainty = f"{latency.confidence:.0%} interval over {count} launches" if count > 1 else "one launch,"
    known = between(outcome)
    usual = f"{_ends(known.around(latency))} on this machine"
    rows = [
        ("latency", f"{_interval(latency)} here and now, {usual}"),
        (
            "intervals",
            f"here and now: {certainty} by the {level:g} quantile of each; "
            f"on this machine: {between_text(known)}",
        ),
        *_input_rows(outcome),
        ("median", _interval(median) if median is not None else "not told by the tool"),
        ("p10, p90", _percentiles(outcome)),
        ("verdict", _verdict(outcome)),
        ("start", _phases(outcome)),
    ]
    copies = copies_ns(outcome)
    if any(value is not None for value in copies.values()):
        to, back = (_ms(value) for value in copies.values())
        rows.append(("copies", f"{to} ms to the accelerator, {back} ms back, in no other time"))
    memory = peak_memory_bytes(outcome)
    if memory is not None:
        rows.append(("peak memory", f"{memory / 1e6:.1f} MB, of the whole process"))
    rows.append(("ran on", _placement(outcome)))
    told = {reason.code for reason in outcome.reasons}
    rows += [("warning", _sentence(each)) for each in outcome.warnings if each.code not in told]
    crowded = Target.parse(outcome.target).warning(outcome.device.cores)
    rows += [("warning", crowded)] if crowded else []
    rows += _identity_rows(outcome)
    rows.append(("conditions", _conditions(outcome.launches[0].before, outcome.launches[-1].after)))
    return rows


def _input_rows(measurement: Measurement) -> Rows:
    """For which shapes and values the latency holds; for sizes that nobody gave, the way to give them."""
    if not measurement.inputs:
        return []
    shown = [printable(str(each)) for each in measurement.inputs]
    rows = [("inputs", "; ".join(shown[:MAX_INPUTS]) + (" ..." if len(shown) > MAX_INPUTS else ""))]
    if found := assumed(measurement):
        taken = ", ".join(each.assumption for each in found)
        rows.append(
            ("NOTE", printable(f"{taken}; give the sizes you use: {' '.join(each.option for each in found)}"))
        )
    return rows


def _short_verdict(measurement: Measurement) -> str:
    # A batch of 1 is what most people mean.
    sized = ", sizes assumed" if any(any(each.assumed) for each in assumed(measurement)) else ""
    return f"{measurement.verdict.value}{', emulated' if measurement.device.emulated else ''}{sized}"


def _verdict(measurement: Measurement) -> str:
    meaning = {
        Verdict.VALID: "valid",
        Verdict.DEGRADED: "degraded, take it with care",
        Verdict.INVALID: "INVALID, not to be relied on",
    }[measurement.verdict]
    void = sorted({launch.void.code for launch in measurement.launches if launch.void is not None})
    left_out = len(measurement.launches) - len(measurement.counted)
    if left_out:
        more = "1 more launch was" if left_out == 1 else f"{left_out} more launches were"
        meaning += f"; {more} disturbed and left out ({', '.join(void)})"
    return "; ".join([meaning, *(printable(reason.detail) for reason in measurement.reasons)])


def _percentiles(measurement: Measurement) -> str:
    low, high, count = pooled_ns(measurement, 0.1), pooled_ns(measurement, 0.9), inferences(measurement)
    if low is None or high is None:
        return f"not given: {count_of(count, 'inference')} cannot carry them, or the tool does not tell"
    return f"{_ms(low)} ms, {_ms(high)} ms, of {count} inferences"


def _phases(measurement: Measurement) -> str:
    names = {"process_start_ns": "process start", "load_ns": "load", "first_inference_ns": "first inference"}
    known = [
        f"{names[phase]} {_ms(time_ns)} ms"
        for phase, time_ns in phases_ns(measurement).items()
        if time_ns is not None
    ]
    return ", ".join(known) or "not told by the tool"


def _placement(measurement: Measurement) -> str:
    placement = measurement.placement
    if placement is None:
        return "not told by the runtime"
    return str(placement) if placement.full else f"{placement}: NOT all on {placement.delegate}"


def _identity_rows(result: Measurement) -> Rows:
    runtime, device = result.runtime, result.device
    parts = [device.cpu, count_of(device.cores, "core"), device.machine, device.os, device.accelerator]
    if device.emulated:
        parts.append("EMULATED: its times say nothing of a real device")
    return [
        ("runtime", f"{runtime.name} {runtime.version}, binary {runtime.binary_digest[:12]}"),
        ("device", printable(", ".join(part for part in parts if part))),
    ]


def _conditions(before: Conditions, after: Conditions) -> str:
    """What could be read, before and after."""
    first, last = dict(_readings(before)), dict(_readings(after))
    found = [
        f"{name} {first.get(name, '?')} -> {last.get(name, '?')}"
        if first.get(name) != last.get(name)
        else f"{name} {value}"
        for name, value in (first | last).items()
    ]
    return ", ".join(found) or "nothing could be read"


def _readings(conditions: Conditions) -> Rows:
    found = [
        ("load", conditions.load_1min, "{:g}"),
        ("clocks", _range(conditions.cpu_frequency_khz, 1e3), "{} MHz"),
        ("governor", conditions.governor, "{}"),
        ("temperature", _hottest(conditions.temperature_millicelsius), "{:.0f} °C"),
        ("throttled", conditions.throttle_count, "{} times"),
        ("thermal status", conditions.thermal_status, "{}"),
        ("battery", conditions.battery_percent, "{} %"),
        ("charging", conditions.charging, "{}"),
        ("GPU clock", conditions.gpu_frequency_khz and conditions.gpu_frequency_khz / 1e3, "{:.0f} MHz"),
        ("GPU temperature", _hottest((conditions.gpu_temperature_millicelsius,)), "{:.0f} °C"),
        ("GPU held down by", conditions.gpu_throttle_reasons, "{}"),
    ]
    return [(name, form.format(value)) for name, value, form in found if value is not None]


def _range(values: Sequence[int] | None, unit: float) -> str | None:
    if not values:
        return None
    low, high = (f"{value / unit:.0f}" for value in (min(values), max(values)))
    return low if low == high else f"{low}-{high}"


def _hottest(values: Sequence[int | None] | None) -> float | None:
    known = [value for value in values or () if value is not None]
    return max(known) / 1e3 if known else None


def _show_operations(console: Console, profile: OperationProfile, path: str) -> None:
    table = _table("", "kind", "name", "ran on", "time, ms", "share", "together", figures=(0, 4, 5, 6))
    numbered = sorted(enumerate(profile.operations, 1), key=lambda entry: -entry[1].time_ns)
    together = 0.0
    for number, operation in numbered[:MAX_OPERATIONS]:
        share = profile.share(operation.time_ns)
        together += share
        table.add_row(
            str(number),
            Text(printable(operation.kind)),
            Text(printable(operation.name)),
            operation.where,
            _ms(operation.time_ns),
            f"{share:.1%}",
            f"{together:.1%}",
        )
    console.print(table)
    if len(numbered) > MAX_OPERATIONS:
        console.print(
            f"  and {len(numbered) - MAX_OPERATIONS:,} more with {1 - together:.1%}; --json has all"
        )
    kinds = _table("kind", "ran on", "operations", "ms", "share", figures=(2, 3, 4))
    for part in profile.by_kind():
        kinds.add_row(
            Text(printable(part.kind)), part.where, str(part.count), _ms(part.time_ns), f"{part.share:.1%}"
        )
    console.print(kinds)
    whole = profile.whole_ns
    beside = "" if whole is None else f", a whole inference meanwhile {_ms(whole)} ms"
    rows = [
        ("sum", f"{_ms(profile.sum_ns)} ms{beside}"),
        *_moving_rows(profile, path),
        *_operation_hints(profile, path),
        ("note", TOO_COARSE if profile.too_coarse else SHARES_HOLD),
    ]
    _print_rows(console, rows)


def _moving_rows(profile: OperationProfile, path: str) -> Rows:
    """What casts, transposes, (de)quantisation and copies take together."""
    moving = profile.moving
    if moving is None:
        return []
    kinds = [each.kind for each in profile.operations if MOVING.search(each.kind)]
    count = added(kinds, Path(path))
    by_runtime = f", of which the runtime added {count}" if count else ""
    said = (
        f"{moving.share:.1%}, {_ms(moving.time_ns)} ms, in {count_of(moving.count, 'operation')}{by_runtime}"
    )
    return [("moving data", printable(f"{said}: {moving.kind}"))]


def _operation_hints(profile: OperationProfile, path: str) -> Rows:
    """Hints about single operations, with what these take; not of those that take nothing worth telling."""
    shares = {each.name: profile.share(each.time_ns) for each in profile.operations}
    return [
        ("hint", printable(f"{hint.operation}, {shares[hint.operation]:.1%} of the time: {hint.detail}"))
        for hint in hints_of(Path(path), Target.parse(profile.target))
        if shares.get(hint.operation, 0) >= WORTH_A_HINT
    ]


def _windows(run: SustainedRun) -> Table:
    columns = ["from, s", "median, ms", "beside the first"]
    if any(_heat(window) for window in run.windows):
        columns.append("clocks, temperature")
    table = _table(*columns, figures=(0, 1, 2))
    step = -(-len(run.windows) // MAX_ROWS)
    for window in run.windows[::step]:
        change = window.median_ns / run.windows[0].median_ns
        cells = (f"{window.start_ns / 1e9:.1f}", _ms(window.median_ns), f"{change:.2f}x", _heat(window))
        table.add_row(*cells[: len(columns)])
    return table


def _heat(window: Window) -> str:
    shown = ("clocks", "temperature", "throttled", "thermal status", "GPU clock", "GPU temperature")
    readings = [f"{name} {value}" for name, value in _readings(window.conditions) if name in shown]
    return ", ".join(readings)


def _sustained_rows(run: SustainedRun) -> Rows:
    rows = [
        ("sustained", str(run)),
        ("conditions", _conditions(run.windows[0].conditions, run.windows[-1].conditions)),
    ]
    if run.ended_early is not None:
        rows.append(("ended early", _sentence(run.ended_early)))
    return rows


def _sentence(reason: Reason) -> str:
    return f"{reason.code}: {' '.join(printable(line) for line in reason.detail.splitlines())}"


def _table(*columns: str, figures: Sequence[int] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number in figures else "left", overflow="fold")
    return table


def _print_rows(console: Console, rows: Rows) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(f"  {name}", Text(value))
    console.print(grid)


def _ms(nanoseconds: float | None) -> str:
    return "?" if nanoseconds is None else f"{nanoseconds / 1e6:.{_decimals(nanoseconds)}f}"


def _interval(interval: Interval) -> str:
    return f"{_ms(interval.value_ns)} ms {_ends(interval)}"


def _ends(interval: Interval) -> str:
    """The ends of an interval with as many digits as its value."""
    decimals = _decimals(interval.value_ns)
    return f"[{interval.low_ns / 1e6:.{decimals}f}, {interval.high_ns / 1e6:.{decimals}f}]"


def _decimals(nanoseconds: float) -> int:
    """As many as show four digits of a number of milliseconds, but never below a nanosecond."""
    if nanoseconds <= 0:
        return 0
    return min(6, max(0, 3 - math.floor(math.log10(nanoseconds / 1e6))))
