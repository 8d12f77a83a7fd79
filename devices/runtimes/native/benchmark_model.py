"""LiteRT by its command-line tool ``benchmark_model``, for phones and boards without Python.

The tool keeps its samples to itself and reports, in whole microseconds, their count, extremes, mean and, in
newer builds, median with 5th and 95th percentile. Lathe takes the median as the headline, and refuses a build
that has only the mean. The inputs are random and cannot be given a seed.

Sources: LiteRT, tflite/tools/benchmark (README.md, benchmark_model.cc, benchmark_tflite_model.cc),
tflite/tools/delegates and tflite/profiling; tsl/util/stats_calculator; tflite/core/subgraph.cc.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from devices.errors import TargetError
from devices.inputs import GivenInput
from devices.measurement.measurement import Placed, Placement, Summary
from devices.measurement.protocol import MeasuringProtocol
from devices.runtimes.capabilities import Support
from devices.runtimes.native.base import CORES, SHAPES_ALONE, Fields, Tool, ToolFailed, ToolSession, tail
from devices.runtimes.native.pushed import PushedTool
from devices.target import Target

NS_PER_US = 1_000
BYTES_PER_MB = 1 << 20

DELEGATES = {"gpu": "--use_gpu=true", "nnapi": "--use_nnapi=true", "xnnpack": "--use_xnnpack=true"}
CPU = "cpu"
"""Where an operation runs that the target's delegate did not take."""

_TIMINGS = re.compile(r"Inference timings in us: Init: ([\d.e+]+), First inference: ([\d.e+]+)")
_COUNT = re.compile(r"(?:INFO: )?count=\d")
_STATISTIC = re.compile(r"(\w+)=([\d.e+]+)")
_PEAK = re.compile(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([\d.e+]+)")
_APPLIED = re.compile(
    r"Explicitly applied \w+ delegate, and the model graph will be (completely|partially) executed by the"
    r" delegate(?: w/ (\d+) delegate kernels)?"
)
_REPLACED = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\)")
_GPU_TOOK = re.compile(r"(\d+) operations will run on the GPU, and the remaining (\d+) operations")
_UNKNOWN_FLAGS = re.compile(r"Unconsumed cmdline flags: (.*)")
_PROFILE = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_KERNELS = {"TfLiteGpuDelegateV2": "gpu", "TfLiteNnapiDelegate": "nnapi", "TfLiteXNNPackDelegate": "xnnpack"}


@dataclass(frozen=True)
class BenchmarkModel(PushedTool):
    """``benchmark_model``, with XNNPACK on the CPU or another delegate by option."""

    inputs: ClassVar[Support] = SHAPES_ALONE
    usage_arguments: ClassVar[tuple[str, ...]] = ("--help=true",)

    def delegate(self, target: Target) -> str:
        """Where the target wants every operation to run."""
        return next((name for name in ("gpu", "nnapi") if name in target.settings), "xnnpack")

    def adapt(self, protocol: MeasuringProtocol) -> MeasuringProtocol:
        """The median is the only quantile in the middle of a launch that the tool reports."""
        return replace(protocol, headline_quantile=0.5)

    def time(self, session: ToolSession, tool: Tool, model: str, protocol: MeasuringProtocol) -> Fields:
        """Time a model in one process; times in whole microseconds, given in nanoseconds."""
        target = session.call.target
        lines = _run(
            session, tool, (*_arguments(session, model, protocol), "--report_peak_memory_footprint=true")
        )
        timings = _find(_TIMINGS, lines)
        if timings is None:
            raise ToolFailed("truncated-output", tail(lines))
        peak = _find(_PEAK, lines)
        delegate = self.delegate(target)
        return {
            "load_ns": _nanoseconds(timings[1]),
            "first_inference_ns": _nanoseconds(timings[2]),
            "samples_ns": [],
            "summary": asdict(parse_summary(lines)),
            "peak_memory_bytes": None if peak is None else round(float(peak[1]) * BYTES_PER_MB),
            "placement": asdict(Placement(delegate, parse_placement(lines, delegate))),
        }

    def profile(
        self, session: ToolSession, tool: Tool, model: str, protocol: MeasuringProtocol
    ) -> tuple[list[Fields], list[int]]:
        """The average of each operation, as its only sample, and that of whole inferences."""
        target = session.call.target
        lines = _run(session, tool, (*_arguments(session, model, protocol), "--enable_op_profiling=true"))
        operations = parse_operations(lines, self.delegate(target))
        if not operations:
            raise ToolFailed("truncated-output", tail(lines))
        return operations, [parse_summary(lines).mean_ns]


BENCHMARK_MODEL = BenchmarkModel(
    name="litert",
    suffixes=(".tflite",),
    precisions=("fp32", "fp16", "int8"),
    options={
        "cores": CORES,
        "gpu": "run on the GPU through LiteRT's GPU delegate",
        "native": "run LiteRT's own benchmark_model, also where there is Python",
        "nnapi": "run on an accelerator through Android's NNAPI",
    },
    tool="benchmark_model",
    usage="--graph",
    canary=Path(__file__).parents[2] / "canary" / "canary.tflite",
)


def parse_summary(lines: Sequence[str]) -> Summary:
    """The statistics of the timed inferences; those of the warm-up come before them.

    Raises:
        ToolFailed: there are none.
        TargetError: the tool is too old to report a median.
    """
    found = [line for line in lines if _COUNT.match(line)]
    if len(found) < 2:
        raise ToolFailed("truncated-output", tail(lines))
    values = dict(_STATISTIC.findall(found[-1]))
    if "first" not in values and "curr" in values:  # equal samples are given as one
        values |= dict.fromkeys(("min", "max", "avg", "median"), values["curr"])
    if "avg" not in values:
        raise ToolFailed("truncated-output", found[-1])
    if "median" not in values:
        raise TargetError(
            "this benchmark_model is too old",
            why="it reports a mean, which a single slow inference moves, and no median",
            fix="give a newer one, which prints 'median=' among its statistics",
        )
    levels = ((0.05, "p5"), (0.5, "median"), (0.95, "p95"))
    return Summary(
        count=int(values["count"]),
        mean_ns=_nanoseconds(values["avg"]),
        min_ns=_nanoseconds(values["min"]),
        max_ns=_nanoseconds(values["max"]),
        quantiles_ns=tuple((level, _nanoseconds(values[name])) for level, name in levels if name in values),
    )


def parse_placement(lines: Sequence[str], delegate: str) -> tuple[Placed, ...]:
    """What the delegate took, and what was left to the CPU.

    The tool does not always count operations: its messages of that level are not in every build.
    """
    applied = _find(_APPLIED, lines)
    if applied is None:
        return (Placed(CPU, None, None),)
    replaced = [match for match in map(_REPLACED.search, lines) if match is not None]
    ours = [match for match in replaced if match[3] == replaced[0][3]]
    gpu = _find(_GPU_TOOK, lines)
    taken: int | None = None
    rest: int | None = None
    if ours:
        taken = sum(int(match[1]) for match in ours)
        rest = sum(int(match[2]) for match in ours) - taken
    elif gpu is not None:
        taken, rest = int(gpu[1]), int(gpu[2])
    if applied[1] == "completely":
        return (Placed(delegate, taken, 1),)
    return (Placed(delegate, taken, None if applied[2] is None else int(applied[2])), Placed(CPU, rest, None))


def parse_operations(lines: Sequence[str], delegate: str) -> list[Fields]:
    """The table of operations in the order in which they ran; its cells are set apart by tabs.

    Times are averages per inference, nanoseconds.
    """
    start = next((number for number, line in enumerate(lines) if _PROFILE in line), len(lines))
    columns: list[str] | None = None
    operations: list[Fields] = []
    for line in lines[start:]:
        cells = [cell.strip() for cell in line.split("\t")]
        if columns is None:
            columns = cells if "[node type]" in cells else None
        elif len(cells) != len(columns):
            break
        else:
            row = dict(zip(columns, cells, strict=True))
            kind, name = row["[node type]"], row["[Name]"]
            average_ns = 1e6 * float(row["[avg ms]"]) * int(row["[times called]"])
            where = delegate if name.startswith("Delegate/") else _KERNELS.get(kind, CPU)
            operations.append({"name": name, "kind": kind, "where": where, "samples_ns": [round(average_ns)]})
    return operations


def _arguments(session: ToolSession, model: str, protocol: MeasuringProtocol) -> tuple[str, ...]:
    target, given = session.call.target, session.given.inputs
    delegate = BENCHMARK_MODEL.delegate(target)
    halves = target.precision == "fp16"
    precision = {
        "gpu": (f"--gpu_precision_loss_allowed={str(halves).lower()}",),
        "nnapi": (f"--nnapi_allow_fp16={str(halves).lower()}",),
        "xnnpack": ("--xnnpack_force_fp16=true",) if halves else (),
    }
    return (
        f"--graph={model}",
        f"--num_threads={target.threads}",
        f"--warmup_runs={protocol.warmup_count}",
        f"--warmup_min_secs={protocol.warmup_ns / 1e9:f}",
        f"--num_runs={protocol.min_count}",
        f"--min_secs={protocol.min_ns / 1e9:f}",
        f"--max_secs={protocol.max_ns / 1e9:f}",
        DELEGATES[delegate],
        *precision[delegate],
        *(_shapes(given) if given else ()),
    )


def _shapes(given: Sequence[GivenInput]) -> tuple[str, str]:
    """Names by commas; shapes by colons, and their sizes by commas."""
    shapes = (",".join(map(str, each.shape or ())) for each in given)
    return (
        f"--input_layer={','.join(each.name for each in given)}",
        f"--input_layer_shape={':'.join(shapes)}",
    )


def _run(session: ToolSession, tool: Tool, arguments: Sequence[str]) -> list[str]:
    lines, status = session.run(tool, arguments)
    unknown = _find(_UNKNOWN_FLAGS, lines)
    if unknown is not None:
        raise ToolFailed("unsupported-option", f"this {tool.name} does not know {unknown[1]}")
    if status != 0:
        loaded = any("Initialized session in" in line for line in lines)
        raise ToolFailed("run-failed" if loaded else "load-failed", tail(lines))
    return lines


def _find(pattern: re.Pattern[str], lines: Sequence[str]) -> re.Match[str] | None:
    return next((match for match in map(pattern.search, lines) if match is not None), None)


def _nanoseconds(microseconds: str) -> int:
    return round(float(microseconds) * NS_PER_US)
