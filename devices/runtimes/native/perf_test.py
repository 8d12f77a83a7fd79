"""ONNX Runtime by its command-line tool ``onnxruntime_perf_test``, for phones and boards without Python.

The tool writes every sample into a file, as seconds with six digits. It warms up by one inference and stops
by whole seconds, so Lathe lets it run for a second or more, leaves the protocol's warm-up out of its samples,
and starts it again for longer where that gave too few of them. Where the operations ran is read from the
profile of a short run of its own.

Sources: ONNX Runtime, onnxruntime/test/perftest (README.md, command_args_parser.cc, performance_runner.cc),
and profiles written by ONNX Runtime 1.31.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from devices.agent.providers import ASYNCHRONOUS, COMPILING, CPU
from devices.agent.providers import PROVIDERS as ALL_PROVIDERS
from devices.measurement.measurement import Placed, Placement
from devices.measurement.protocol import MeasuringProtocol
from devices.runtimes.capabilities import STARTS_KERNELS, Capabilities
from devices.runtimes.native.base import CORES, Fields, Tool, ToolFailed, ToolSession, tail
from devices.runtimes.native.pushed import PushedTool
from devices.target import Target
from devices.untrusted import json_from

NS_PER_S = 1_000_000_000
PROVIDERS = {name: ALL_PROVIDERS[name] for name in ("acl", "cuda", "nnapi", "tensorrt", "webgpu", "xnnpack")}
"""Those that the tool takes by the same names."""

_LOADED = re.compile(r"Session creation time cost: ?([\d.e+-]+) s")
_FIRST = re.compile(r"First inference time cost: ?(\d+) ms")
_REQUESTS = re.compile(r"Total inference requests: ?(\d+)")
_SAMPLE = re.compile(r".*,(\d+(?:\.\d+)?(?:e[+-]\d+)?),\d+,-?\d+,\d+")
_PEAK = re.compile(r"Peak working set size: ?(\d+)")


@dataclass(frozen=True)
class PerfTest(PushedTool):
    """``onnxruntime_perf_test``, on the CPU or on another execution provider by option."""

    def delegate(self, target: Target) -> str:
        """Where the target wants every operation to run."""
        return next((PROVIDERS[name] for name in target.settings if name in PROVIDERS), CPU)

    def capabilities(self, target: Target) -> Capabilities:
        """Everything but outputs; no operations of providers whose kernels are only started in their time."""
        support = super().capabilities(target)
        starts_only = self.delegate(target) in ASYNCHRONOUS
        return replace(support, operations=STARTS_KERNELS) if starts_only else support

    def adapt(self, protocol: MeasuringProtocol) -> MeasuringProtocol:
        """Timing goes on until the warm-up and it fill a whole number of seconds."""
        return replace(protocol, min_ns=_seconds(protocol) * NS_PER_S - protocol.warmup_ns)

    def time(self, session: ToolSession, tool: Tool, model: str, protocol: MeasuringProtocol) -> Fields:
        """Time a model in one process, and once more for longer if it is too slow for the shortest time."""
        seconds = _seconds(protocol)
        lines, every_ns = self._samples(session, tool, model, protocol, seconds)
        samples_ns = steady(every_ns, protocol)
        longest = math.ceil(2 * protocol.max_ns / NS_PER_S)
        if len(samples_ns) < protocol.min_count and seconds < longest:
            wanted_ns = max(every_ns) * (protocol.warmup_count + protocol.min_count) + protocol.warmup_ns
            seconds = min(longest, math.ceil(wanted_ns / NS_PER_S))
            lines, every_ns = self._samples(session, tool, model, protocol, seconds)
            samples_ns = steady(every_ns, protocol)
        loaded, first, peak = (_find(pattern, lines) for pattern in (_LOADED, _FIRST, _PEAK))
        return {
            "load_ns": None if loaded is None else round(float(loaded) * NS_PER_S),
            # Whole milliseconds, so that 0 says nothing.
            "first_inference_ns": int(first) * 1_000_000 if first is not None and int(first) > 0 else None,
            "samples_ns": samples_ns or every_ns[-1:],
            "peak_memory_bytes": None if peak is None else int(peak),
        }

    def placement(
        self, session: ToolSession, tool: Tool, model: str, protocol: MeasuringProtocol
    ) -> Placement:
        """From the profile of one inference."""
        runs = self._profiled(session, tool, model, protocol, 1)
        return Placement(self.delegate(session.call.target), parse_placement(runs))

    def profile(
        self, session: ToolSession, tool: Tool, model: str, protocol: MeasuringProtocol
    ) -> tuple[list[Fields], list[int]]:
        """Each operation with a sample per inference; the inference that warms up is left out."""
        runs = self._profiled(session, tool, model, protocol, protocol.min_count)[1:]
        operations: dict[tuple[str, str, str], list[int]] = {}
        for run in runs:
            for node, duration_ns in run.nodes.items():
                operations.setdefault(node, []).append(duration_ns)
        if not operations:
            raise ToolFailed("truncated-output", "the profile holds no operations")
        found: list[Fields] = [
            {"name": name, "kind": kind, "where": where, "samples_ns": samples_ns}
            for (name, kind, where), samples_ns in operations.items()
        ]
        return found, [run.total_ns for run in runs]

    def _samples(
        self, session: ToolSession, tool: Tool, model: str, protocol: MeasuringProtocol, seconds: int
    ) -> tuple[list[str], list[int]]:
        times = session.new_file()
        lines = self._run(session, tool, model, protocol, ("-t", str(seconds)), times)
        samples_ns = parse_samples(session.take_files(times))
        requests = _find(_REQUESTS, lines)
        if requests is None:
            raise ToolFailed("truncated-output", tail(lines))
        if not samples_ns or len(samples_ns) != int(requests):
            raise ToolFailed("truncated-output", f"{len(samples_ns)} of {requests} times are in its file")
        return lines, samples_ns

    def _profiled(
        self, session: ToolSession, tool: Tool, model: str, protocol: MeasuringProtocol, count: int
    ) -> list[ProfiledRun]:
        profile = session.new_file()
        self._run(session, tool, model, protocol, ("-r", str(count), "-p", profile))
        return list(parse_profile("\n".join(session.take_files(profile))))

    def _run(
        self,
        session: ToolSession,
        tool: Tool,
        model: str,
        protocol: MeasuringProtocol,
        how_long: Sequence[str],
        *result_file: str,
    ) -> list[str]:
        target = session.call.target
        provider = next((name for name in target.settings if name in PROVIDERS), "cpu")
        half = " NNAPI_FLAG_USE_FP16" if target.precision == "fp16" else ""
        lines, status = session.run(
            tool,
            (
                *("-e", provider, "-x", str(target.threads), "-y", "1"),
                *(("-i", f"NNAPI_FLAG_CPU_DISABLED{half}") if provider == "nnapi" else ()),
                *("-I", "-S", str(protocol.input_seed), *how_long, model, *result_file),
            ),
        )
        if status != 0:
            loaded = any("Run failed" in line for line in lines)
            raise ToolFailed("run-failed" if loaded else "load-failed", tail(lines))
        return lines


PERF_TEST = PerfTest(
    name="onnxruntime",
    suffixes=(".onnx", ".ort"),
    precisions=("fp32", "fp16", "int8"),
    options={
        "cores": CORES,
        "native": "run ONNX Runtime's own onnxruntime_perf_test, also where there is Python",
        **{name: f"run on {provider}" for name, provider in PROVIDERS.items()},
    },
    tool="onnxruntime_perf_test",
    usage="model_path",
    canary=Path(__file__).parents[2] / "canary" / "canary.onnx",
)


@dataclass(frozen=True)
class ProfiledRun:
    """One inference in a profile: time by name, kind and provider of its operations, and in all."""

    nodes: dict[tuple[str, str, str], int]
    total_ns: int


def parse_samples(lines: Sequence[str]) -> list[int]:
    """Nanoseconds from lines of model, seconds, peak memory, use of the processor and number."""
    found = (_SAMPLE.fullmatch(line.strip()) for line in lines)
    return [round(float(match[1]) * NS_PER_S) for match in found if match is not None]


def steady(samples_ns: Sequence[int], protocol: MeasuringProtocol) -> list[int]:
    """The samples after the protocol's warm-up, and no more than it wants."""
    elapsed_ns = 0
    for number, sample_ns in enumerate(samples_ns):
        if elapsed_ns >= protocol.max_ns or (
            number >= protocol.warmup_count and elapsed_ns >= protocol.warmup_ns
        ):
            return list(samples_ns[number : number + protocol.max_count])
        elapsed_ns += sample_ns
    return []


def parse_profile(text: str) -> Iterator[ProfiledRun]:
    """The inferences of a profile, in order.

    Raises:
        ToolFailed: it is not a whole profile.
    """
    try:
        events: list[dict[str, Any]] = sorted(json_from(text), key=lambda event: int(event["ts"]))
        runs = [event for event in events if event["name"] == "model_run"]
        for run in runs:
            end = run["ts"] + run["dur"]
            nodes: dict[tuple[str, str, str], int] = {}
            for event in events:
                if event["cat"] == "Node" and "dur" in event and run["ts"] <= event["ts"] <= end:
                    name, _, part = str(event["name"]).rpartition("_kernel_time")
                    if not part and name:
                        node = (name, str(event["args"]["op_name"]), str(event["args"]["provider"]))
                        nodes[node] = nodes.get(node, 0) + 1_000 * int(event["dur"])
            yield ProfiledRun(nodes, 1_000 * int(run["dur"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ToolFailed("truncated-output", f"the profile cannot be read: {error!r}") from error


def parse_placement(runs: Sequence[ProfiledRun]) -> tuple[Placed, ...]:
    """How many operations each provider ran, in how many stretches of their order of execution.

    Raises:
        ToolFailed: no inference was profiled.
    """
    if not runs or not runs[-1].nodes:
        raise ToolFailed("truncated-output", "the profile holds no operations")
    order = [where for _, _, where in runs[-1].nodes]
    stretches = [where for where, _ in groupby(order)]
    return tuple(
        Placed(where, None, order.count(where))
        if where in COMPILING
        else Placed(where, order.count(where), stretches.count(where))
        for where in dict.fromkeys(order)
    )


def _seconds(protocol: MeasuringProtocol) -> int:
    return max(1, math.ceil((protocol.warmup_ns + protocol.min_ns) / NS_PER_S))


def _find(pattern: re.Pattern[str], lines: Sequence[str]) -> str | None:
    return next((match[1] for match in map(pattern.search, lines) if match is not None), None)
