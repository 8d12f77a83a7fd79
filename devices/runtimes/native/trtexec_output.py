"""Reads what ``trtexec`` prints and exports.

The formats are those of its source, ``samples/common/sampleReporting.cpp`` and ``logging.h`` of TensorRT 8.6
to 11.1. Warnings and errors go to standard error, all other messages to standard output.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from devices.untrusted import json_from

_BANNER = re.compile(r"&&&& [A-Z_]+ TensorRT\.trtexec \[TensorRT v(\d{1,9})\](?: \[b(\d{1,9})\])?")
_ERROR = re.compile(r"\[[EF]\] (?:\[TRT\] )?(.*)")
_WARNING = re.compile(r"\[W\] \* (.*)")
_LOADED = re.compile(r"\[I\] Engine (?:deserialized|loaded) in (\S+) sec\.")
_TRACE = re.compile(r"\[I\] Timing trace has (\d+) queries")

_WARNINGS = (
    ("bound by Enqueue Time", "host-bound"),
    ("bound by host-to-device transfers", "copy-bound"),
    ("bound by device-to-host transfers", "copy-bound"),
    ("GPU compute time is unstable", "unstable"),
)


@dataclass(frozen=True)
class Inference:
    """One inference of the exported times; ``start_ns`` is when it began, by trtexec's own clock."""

    start_ns: int
    compute_ns: int
    to_device_ns: int
    from_device_ns: int


def version(text: str) -> str | None:
    """TensorRT's version by the first line that trtexec prints: ``v8601`` is 8.6.1, ``v100300`` is 10.3.0."""
    found = _BANNER.search(text)
    if found is None:
        return None
    number = int(found[1])
    parts = (
        (number // 10_000, number // 100 % 100, number % 100)
        if number >= 10_000
        else (number // 1000, number // 100 % 10, number % 100)
    )
    return ".".join(map(str, (*parts, *([int(found[2])] if found[2] else []))))


def passed(lines: Iterable[str]) -> bool:
    """Whether trtexec says that it has done everything."""
    return any(line.startswith("&&&& PASSED TensorRT.trtexec") for line in lines)


def load_ns(lines: Iterable[str]) -> int | None:
    """How long reading and deserialising the engine took, nanoseconds."""
    found = [float(match[1]) for match in map(_LOADED.search, lines) if match]
    return round(sum(found) * 1e9) if found else None


def inferences(text: str, lines: Iterable[str]) -> tuple[Inference, ...]:
    """What ``--exportTimes`` wrote, which must be as many inferences as were printed to have been timed.

    Raises:
        ValueError: it is not that, or was cut.
    """
    rows = [
        Inference(
            *(_ns(row, name) for name in ("startComputeMs", "computeMs", "h2dMs", "d2hMs")),
        )
        for row in _objects(text)
    ]
    told = [int(match[1]) for match in map(_TRACE.search, lines) if match]
    if not rows or told != [len(rows)]:
        raise ValueError(f"{len(rows)} inferences were exported, and {told} announced")
    return tuple(rows)


def profile(text: str) -> tuple[list[tuple[str, int]], int]:
    """What ``--exportProfile`` wrote: layers with their mean time, and the mean of their sum, nanoseconds.

    Raises:
        ValueError: it is not that.
    """
    head, *layers = _objects(text)
    count = head.get("count")
    if not isinstance(count, int) or count < 1 or not layers:
        raise ValueError("no layer was profiled")
    total_ns = sum(_ns(layer, "timeMs") for layer in layers)
    return [(str(layer.get("name")), _ns(layer, "averageMs")) for layer in layers], round(total_ns / count)


def layers(text: str) -> list[Mapping[str, Any]]:
    """What ``--exportLayerInfo`` wrote; of an engine without details each layer has its name only.

    Raises:
        ValueError: it is not that.
    """
    report = json_from(text)
    found = report.get("Layers") if isinstance(report, dict) else None
    if not isinstance(found, list):
        raise ValueError("no layers were exported")
    return [layer if isinstance(layer, dict) else {"Name": str(layer)} for layer in found]


def warnings(errors: str) -> Iterator[dict[str, str]]:
    """Warnings beside the performance summary: a machine-readable code and trtexec's own sentence."""
    for match in map(_WARNING.search, errors.splitlines()):
        for words, code in _WARNINGS:
            if match is not None and words in match[1]:
                yield {"code": code, "detail": f"trtexec: {match[1]}"}


def failure(errors: str) -> tuple[str, str] | None:
    """A machine-readable code for what trtexec says went wrong, and its sentences; or nothing."""
    found = [match[1].strip() for match in map(_ERROR.search, errors.splitlines()) if match]
    if not found:
        return None
    detail = "; ".join(found[-8:])
    if re.search(r"out ?of ?memory", detail, re.IGNORECASE):
        return "out-of-memory", detail
    if "version" in detail.lower() and "deserializ" in detail.lower():
        return "load-failed", f"the engine was built by another version of TensorRT: {detail}"
    return "run-failed" if "Error occurred during inference" in detail else "load-failed", detail


def _objects(text: str) -> list[Mapping[str, Any]]:
    rows = json_from(text)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError("not a list of objects")
    return rows


def _ns(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is {value!r}")
    return round(value * 1e6)
