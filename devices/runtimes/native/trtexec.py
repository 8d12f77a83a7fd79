"""TensorRT by ``trtexec``, which is installed with TensorRT on the device; versions 8.6 and newer.

One process builds an engine, which is kept on the device; one further process for each file of a launch times
it. Sources: ``trtexec --help`` and the source of TensorRT 8.6, 10.3, 10.16 and 11.1.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, TypeVar

from devices.agent.tensorrt_engines import STRONGLY_TYPED, lacks_precision
from devices.artifacts import artifact_digest
from devices.digests import value_digest
from devices.errors import TargetError
from devices.measurement.protocol import MeasuringProtocol
from devices.runtimes.base import Call, Reply, Request, Sustain
from devices.runtimes.capabilities import Support
from devices.runtimes.native import trtexec_output
from devices.runtimes.native.base import (
    CORES,
    SHAPES_ALONE,
    Fields,
    NativeRuntime,
    Tool,
    ToolFailed,
    ToolSession,
    tail,
    thinned,
)
from devices.runtimes.native.nvidia import gpu_conditions, readings
from devices.target import Target

T = TypeVar("T")

CANDIDATES = ("trtexec", "/usr/src/tensorrt/bin/trtexec")
"""Where trtexec is looked for; the second is where NVIDIA's Debian packages put it."""
INSTALL = "on a Jetson: sudo apt-get install tensorrt, which is part of JetPack; elsewhere see NVIDIA's guide"
DELEGATE = "tensorrt"
WARMUP_NS = 200_000_000
"""The least warm-up, trtexec's own: a GPU takes that long to raise its clocks."""
UNCAPPED_COUNT, UNCAPPED_NS = 2**31 - 1, 2**63 - 1
"""trtexec has no upper limits."""

_PRECISION_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "fp32": (),
    "fp16": ("--fp16",),
    "bf16": ("--bf16",),
    "int8": ("--int8", "--fp16"),
}

# Prints ``name value`` for what it finds: the first of its arguments that is a command, the first line of its
# help, a folder for engines, and the GPU. Older drivers do not know compute_cap; older Jetsons have no
# nvidia-smi. trtexec opens libnvinfer when it runs, so that ldd does not list it; the cache of the loader
# does.
_SURVEY = r"""
LC_ALL=C; export LC_ALL
PATH=$PATH:/sbin:/usr/sbin; export PATH
exec 2>/dev/null
for name; do tool=$(command -v "$name") && break; done
[ -n "$tool" ] || exit 0
echo "tool $tool"
"$tool" --help | sed -n '1s/^/banner /p'
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lathe/tensorrt
mkdir -p "$cache" && [ -w "$cache" ] && echo "cache $cache"
smi() { nvidia-smi --id=0 --query-gpu="$1" --format=csv,noheader | sed -n '1p'; }
gpu=$(smi name,compute_cap,driver_version)
case $gpu in *,*,*) echo "gpu $gpu";; *) echo "gpu $(smi name,driver_version)";; esac
sed -n '1s/^# */tegra /p' /etc/nv_tegra_release
echo "board $(tr -d '\000' < /proc/device-tree/model)"
{ echo "$tool"; ldconfig -p | sed -n 's/.*=> \(.*\/libnvinfer\.so\..*\)/\1/p' | sort -u; } |
  while read -r file; do
    if digest=$(sha256sum < "$file"); then echo "digest ${digest%% *}"; else echo "unread $file"; fi
  done
"""
_IS_FILE = 'test -f "$1" && echo yes'
_REMOVE = 'rm -f "$1"'
_KEEP = 'mv -f "$1" "$2" && echo kept'


@dataclass(frozen=True)
class InstalledTrtexec(Tool):
    """trtexec on a device, where engines are kept, and for which GPU and driver."""

    cache: str
    gpu: str

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.split(".")[0])


@dataclass(frozen=True)
class Trtexec(NativeRuntime[InstalledTrtexec]):
    """TensorRT by ``trtexec``.

    A sample is trtexec's *GPU compute time* of one inference with ``--exposeDMA``: nothing is enqueued ahead,
    so that it is the time from just before the inference is enqueued, with its input on the GPU, until its
    last kernel has ended. Copies are trtexec's *H2D* and *D2H latency*. Inputs are trtexec's own random
    values. The time of the first inference, peak memory and usage of the processor are not reported.
    """

    inputs: ClassVar[Support] = SHAPES_ALONE
    operations: ClassVar[Support] = Support(True, "a mean for each layer")
    no_outputs: ClassVar[str] = "trtexec would need a process for each input, and prints six digits"

    def delegate(self, target: Target) -> str:
        """All layers run in the engine."""
        return DELEGATE

    def adapt(self, protocol: MeasuringProtocol) -> MeasuringProtocol:
        """trtexec warms up by time alone, and goes on until minimum count and time are both reached."""
        return replace(
            protocol,
            warmup_count=0,
            warmup_ns=max(protocol.warmup_ns, WARMUP_NS),
            max_count=UNCAPPED_COUNT,
            max_ns=UNCAPPED_NS,
        )

    def exchange(self, call: Call, request: Request) -> Reply:
        """As every tool; but of a sustained run it tells at the end only, so that silence means nothing."""
        return super().exchange(
            replace(call, silence_s=None) if isinstance(request, Sustain) else call, request
        )

    def find(self, session: ToolSession) -> InstalledTrtexec:
        """Look for trtexec where devices.toml says that it is, or where it usually is."""
        call = session.call
        device, named = call.target.device, call.tools.get("trtexec")
        candidates = (named,) if named else CANDIDATES
        lines = session.script(_SURVEY, *candidates)
        read = readings(lines)
        if "tool" not in read:
            raise TargetError(
                f"trtexec is not installed on '{device}'",
                why=f"it was looked for as {' and as '.join(candidates)}",
                fix=f"{INSTALL}; or put it on the PATH"
                if device == "host"
                else f'{INSTALL}; or write tools.trtexec = "/path/to/trtexec" under [devices.{device}] '
                "in devices.toml",
            )
        version = trtexec_output.version(read.get("banner", ""))
        if version is None:
            raise TargetError(
                f"'{read['tool']}' on '{device}' is not a trtexec that works",
                why="what it prints does not begin with the version of TensorRT",
                fix=f"start '{read['tool']} --help' there and see what it says",
            )
        gpu = read.get("gpu") or ", ".join(read[name] for name in ("board", "tegra") if read.get(name))
        digests = sorted(line.split()[1] for line in lines if re.fullmatch("digest [0-9a-f]{64}", line))
        if not digests:
            raise TargetError(
                f"nothing tells which TensorRT is installed on '{device}'",
                why=f"no digest could be made of {read.get('unread', read['tool'])}",
                fix="let your user read that file there, and see that the command sha256sum works",
            )
        cache = read.get("cache") or call.connection.scratch()
        return InstalledTrtexec("trtexec", read["tool"], version, value_digest(digests), cache, gpu)

    def identity(self, session: ToolSession, tool: InstalledTrtexec) -> Fields:
        """The device with its GPU."""
        return {**super().identity(session, tool), "accelerator": tool.gpu}

    def conditions(self, session: ToolSession) -> Fields:
        """The state of the device and of its GPU."""
        return {**super().conditions(session), **gpu_conditions(session.call.connection)}

    def load(self, session: ToolSession, tool: InstalledTrtexec, artifact: Path) -> str:
        """The engine of a file on the device, built there unless it is kept already."""
        remote = super().load(session, tool, artifact)
        if artifact.suffix.lower() != ".onnx":
            return remote
        options = [*_build_options(session.call.target, tool), *_shapes(session)]
        builder = {"version": tool.version, "gpu": tool.gpu}
        key = value_digest({"model": artifact_digest(artifact), "options": options, **builder})
        engine = f"{tool.cache}/{key}.engine"
        if session.script(_IS_FILE, engine):
            return engine
        timings, partial = f"{tool.cache}/{value_digest(builder)}.timings", f"{engine}.partial"
        arguments = [f"--onnx={remote}", f"--saveEngine={partial}", "--skipInference", *options]
        try:
            _run(session, tool, [*arguments, f"--timingCacheFile={timings}"])
        except ToolFailed as failed:
            if "timing" not in str(failed).lower() or "cache" not in str(failed).lower():
                raise
            session.script(_REMOVE, timings)
            _run(session, tool, arguments)
        if not session.script(_KEEP, partial, engine):
            raise ToolFailed("load-failed", f"the engine could not be kept as {engine}")
        return engine

    def time(
        self, session: ToolSession, tool: InstalledTrtexec, model: str, protocol: MeasuringProtocol
    ) -> Fields:
        """Time an engine in one process."""
        times, exported = session.new_file(), session.new_file()
        lines = _run_engine(
            session, tool, model, protocol, [f"--exportTimes={times}", f"--exportLayerInfo={exported}"]
        )
        rows = _parse(session, times, "times", lambda text: trtexec_output.inferences(text, lines))
        layers = _parse(session, exported, "layers", trtexec_output.layers)
        warnings = list(trtexec_output.warnings("\n".join(lines)))
        precision = session.call.target.precision
        if lacks_precision(layers, precision):
            detail = f"no layer of the engine uses {precision}"
            warnings.append({"code": "precision-unused", "detail": detail})
        part = {"where": DELEGATE, "nodes": len(layers), "partitions": 1}
        return {
            "load_ns": trtexec_output.load_ns(lines),
            "first_inference_ns": None,
            "samples_ns": [row.compute_ns for row in rows],
            "peak_memory_bytes": None,
            "placement": {"delegate": DELEGATE, "parts": [part]},
            "to_device_ns": [row.to_device_ns for row in rows],
            "from_device_ns": [row.from_device_ns for row in rows],
            "warnings": warnings,
        }

    def profile(
        self, session: ToolSession, tool: InstalledTrtexec, model: str, protocol: MeasuringProtocol
    ) -> tuple[list[Fields], list[int]]:
        """Mean time of each layer, which is all that trtexec keeps of them."""
        profile, exported = session.new_file(), session.new_file()
        arguments = [f"--exportProfile={profile}", f"--exportLayerInfo={exported}"]
        _run_engine(session, tool, model, protocol, arguments)
        times, total_ns = _parse(session, profile, "profile", trtexec_output.profile)
        layers = _parse(session, exported, "layers", trtexec_output.layers)
        kinds = {layer.get("Name"): layer.get("LayerType", "") for layer in layers}
        return [
            {"name": name, "kind": kinds.get(name, ""), "where": DELEGATE, "samples_ns": [mean_ns]}
            for name, mean_ns in times
        ], [total_ns]

    def sustain(self, session: ToolSession, tool: InstalledTrtexec, model: str, request: Sustain) -> None:
        """One long run; trtexec tells of all its inferences at the end.

        Its clock is a 32-bit float of milliseconds: after a minute it counts in steps of 4 us, after ten
        minutes in steps of 60 us.
        """
        conditions: list[Fields] = []
        begun, ended = threading.Event(), threading.Event()

        def watch() -> None:
            begun.wait()
            while not ended.wait(request.window_ns / 1e9):
                conditions.append(self.conditions(session))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        times = session.new_file()
        try:
            lines = _run_engine(
                session,
                tool,
                model,
                replace(request.protocol, min_ns=request.duration_ns),
                [f"--exportTimes={times}"],
                on_line=lambda line: begun.set() if "Starting inference" in line else None,
            )
            rows = _parse(session, times, "times", lambda text: trtexec_output.inferences(text, lines))
        finally:
            ended.set()
            begun.set()
            watcher.join()
        conditions.append(self.conditions(session))
        windows: dict[int, list[trtexec_output.Inference]] = {}
        for row in rows:
            windows.setdefault((row.start_ns - rows[0].start_ns) // request.window_ns, []).append(row)
        for number, inside in sorted(windows.items()):
            session.emit(
                "window",
                start_ns=inside[0].start_ns - rows[0].start_ns,
                count=len(inside),
                samples_ns=thinned([row.compute_ns for row in inside], request.protocol),
                conditions=conditions[min(number, len(conditions) - 1)],
            )


def _build_options(target: Target, tool: InstalledTrtexec) -> list[str]:
    precision = () if tool.major >= STRONGLY_TYPED else _PRECISION_ARGUMENTS[target.precision]
    tf32 = () if "tf32" in target.settings else ("--noTF32",)
    return ["--profilingVerbosity=detailed", *precision, *tf32]


def _shapes(session: ToolSession) -> list[str]:
    """The shapes that are given, for which an engine is built and by which it is run."""
    given = session.given.inputs
    shapes = ",".join(f"{each.name}:{'x'.join(map(str, each.shape or ()))}" for each in given)
    return [f"--shapes={shapes}"] if given else []


def _run_engine(
    session: ToolSession,
    tool: InstalledTrtexec,
    engine: str,
    protocol: MeasuringProtocol,
    arguments: Sequence[str],
    *,
    on_line: Callable[[str], None] | None = None,
) -> list[str]:
    """Run an engine as the protocol says; a kept one that is damaged is removed, to be built again."""
    # One inference at a time, copies told apart, and a host that does not sleep meanwhile. From version 11 on
    # spinning is the default, and so are CUDA graphs and no copies.
    recent = tool.major >= STRONGLY_TYPED
    mode = ("--includeDataTransfers", "--noCudaGraph") if recent else ("--useSpinWait",)
    timing = (
        f"--warmUp={protocol.warmup_ns / 1e6:g}",
        f"--iterations={protocol.min_count}",
        f"--duration={protocol.min_ns / 1e9:g}",
    )
    try:
        return _run(
            session,
            tool,
            (f"--loadEngine={engine}", "--exposeDMA", *mode, *timing, *_shapes(session), *arguments),
            on_line,
        )
    except ToolFailed as failed:
        if engine.startswith(f"{tool.cache}/") and failed.code == "load-failed":
            session.script(_REMOVE, engine)
        raise


def _run(
    session: ToolSession,
    tool: Tool,
    arguments: Sequence[str],
    on_line: Callable[[str], None] | None = None,
) -> list[str]:
    """Run trtexec to its end; what it wrote."""
    lines, status = session.run(tool, arguments, on_line=on_line)
    if status == 0 and trtexec_output.passed(lines):
        return lines
    told = trtexec_output.failure("\n".join(lines)) if status != 0 else None
    raise ToolFailed(*(told or (f"crashed-exit-{status}" if status else "truncated-output", tail(lines))))


def _parse(session: ToolSession, remote: str, name: str, parse: Callable[[str], T]) -> T:
    """A file that trtexec exported, read and removed."""
    try:
        return parse("\n".join(session.take_files(remote)))
    except ValueError as error:
        raise ToolFailed("truncated-output", f"trtexec's exported {name} cannot be read: {error}") from error


TRTEXEC = Trtexec(
    name="tensorrt",
    suffixes=(".onnx", ".engine", ".plan"),
    precisions=("fp16", "fp32", "bf16", "int8"),
    options={
        "cores": CORES,
        "native": "use trtexec rather than the Python API",
        "tf32": "let fp32 convolutions and products be computed in TF32",
    },
    canary=Path(__file__).parents[2] / "canary" / "canary.onnx",
)
