"""Runs ``trtexec`` on a device, and turns what it says into events.

One process builds an engine, which is kept on the device; one further process for each file of a launch times
it. Sources: ``trtexec --help`` and the source of TensorRT 8.6, 10.3, 10.16 and 11.1.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from devices.connections import Completed
from devices.digests import file_digest, value_digest
from devices.errors import MeasurementError, TargetError
from devices.measurement.measurement import MeasuringProtocol
from devices.runtimes.base import Call, Event, describe_end
from devices.runtimes.native import trtexec_output
from devices.runtimes.native.nvidia import COMMAND_TIMEOUT_S, gpu_conditions, readings
from devices.runtimes.native.shell import identify_device, read_conditions

T = TypeVar("T")

CANDIDATES = ("trtexec", "/usr/src/tensorrt/bin/trtexec")
"""Where trtexec is looked for; the second is where NVIDIA's Debian packages put it."""
INSTALL = "on a Jetson: sudo apt-get install tensorrt, which is part of JetPack; elsewhere see NVIDIA's guide"
DELEGATE = "tensorrt"

_PRECISION_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "fp32": (),
    "fp16": ("--fp16",),
    "bf16": ("--bf16",),
    "int8": ("--int8", "--fp16"),
}
_STRONGLY_TYPED = 11
"""The version from which types come from the model, and the arguments for precisions are gone."""
_EXTERNAL_WEIGHTS = re.compile(rb"\x6a.{1,2}\x0a\x08location", re.DOTALL)
"""An entry of ``TensorProto.external_data`` (field 13) with the key ``location``."""

# Prints ``name value`` for what it finds: the first of its arguments that is a command, the first line of its
# help, a folder for engines, and the GPU. Older drivers do not know compute_cap; older Jetsons have no
# nvidia-smi.
_SURVEY = r"""
LC_ALL=C; export LC_ALL
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
"""

# trtexec opens libnvinfer when it runs, so that ldd does not list it; the cache of the loader does.
_DIGESTS = r"""
LC_ALL=C; export LC_ALL
PATH=$PATH:/sbin:/usr/sbin; export PATH
exec 2>/dev/null
sha256sum "$1" || exit 1
ldconfig -p | sed -n 's/.*=> \(.*\/libnvinfer\.so\..*\)/\1/p' | sort -u | while read -r file; do
  sha256sum "$file"
done
"""


class Failed(Exception):
    """One file could not be timed."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class Lost(Exception):
    """The device went away."""

    def __init__(self, ended: Completed) -> None:
        super().__init__("the device went away")
        self.ended = ended


@dataclass(frozen=True)
class Found:
    """What a survey found: trtexec, its version, where engines are kept, and for which GPU and driver."""

    tool: str
    version: str
    cache: str
    gpu: str

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.split(".")[0])


def survey(call: Call) -> Found:
    """Look for trtexec on the device of a call, where devices.toml says that it is, or where it usually is.

    Raises:
        TargetError: it is not there, or is something else.
        Lost: the device went away.
    """
    from devices.inventory.devices import find_device  # which imports the runtimes

    device = call.target.device
    named = find_device(device).tools.get("trtexec")
    candidates = (named,) if named else CANDIDATES
    lines: list[str] = []
    ended = call.connection.run(
        ("sh", "-c", _SURVEY, "sh", *candidates), timeout_s=COMMAND_TIMEOUT_S, on_line=lines.append
    )
    if ended.lost:
        raise Lost(ended)
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
    return Found(read["tool"], version, read.get("cache") or call.connection.scratch(), gpu)


@dataclass(frozen=True)
class _Said:
    """What trtexec wrote on standard output, and the tail of what it wrote on standard error."""

    lines: tuple[str, ...]
    errors: str


@dataclass
class Session:
    """One exchange: its events so far, and until when it may take."""

    call: Call
    found: Found
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + self.call.timeout_s
        self._scratch = self.call.connection.scratch()

    def emit(self, event: str, **fields: Any) -> None:
        """Keep an event, and hand it on."""
        self.events.append({"event": event, **fields})
        if self.call.on_event is not None:
            self.call.on_event(self.events[-1])

    def identify(self) -> None:
        """Digests of trtexec and libnvinfer as one, and the device with its GPU."""
        self.emit("ready", process_start_ns=None)
        lines = self._command("sh", "-c", _DIGESTS, "sh", self.found.tool)
        digests = sorted(line.split()[0] for line in lines)
        device = identify_device(self.call.connection)
        runtime = {"version": self.found.version, "binary_digest": value_digest(digests)}
        self.emit("identity", runtime=runtime, device={**device, "accelerator": self.found.gpu})

    def measure(self, artifacts: Sequence[Path], protocol: MeasuringProtocol, canary: Path) -> None:
        """Time each file in a process of its own, and the canary before, between and after them."""
        self.emit("ready", process_start_ns=None)
        self._time_canary(canary, protocol)
        for index, artifact in enumerate(artifacts):
            self.emit("started", job=index)
            try:
                self.emit("result", job=index, **self._time(artifact, protocol))
            except Failed as failed:
                self.emit("failed", job=index, code=failed.code, detail=failed.detail)
            if index + 1 == len(artifacts) // 2:
                self._time_canary(canary, protocol)
        self._time_canary(canary, protocol)

    def operations(self, artifact: Path, protocol: MeasuringProtocol) -> None:
        """Mean time of each layer, which is all that trtexec keeps of them."""
        self.emit("ready", process_start_ns=None)
        self.emit("started", job=0)
        with self._exported("profile.json", "layers.json") as (profile, layers):
            arguments = [f"--exportProfile={profile}", f"--exportLayerInfo={layers}"]
            self._run_engine(artifact, protocol, arguments)
            times, total_ns = self._parse(trtexec_output.profile, profile)
            kinds = {
                layer.get("Name"): layer.get("LayerType", "")
                for layer in self._parse(trtexec_output.layers, layers)
            }
        operations = [
            {"name": name, "kind": kinds.get(name, ""), "where": DELEGATE, "samples_ns": [mean_ns]}
            for name, mean_ns in times
        ]
        self.emit("operations", operations=operations, total_ns=[total_ns])

    def sustain(self, artifact: Path, protocol: MeasuringProtocol, duration_ns: int, window_ns: int) -> None:
        """One long run; trtexec tells of all its inferences at the end.

        Its clock is a 32-bit float of milliseconds: after a minute it counts in steps of 4 us, after ten
        minutes in steps of 60 us.
        """
        self.emit("ready", process_start_ns=None)
        self.emit("started", job=0)
        conditions: list[dict[str, Any]] = []
        begun, ended = threading.Event(), threading.Event()

        def watch() -> None:
            begun.wait()
            while not ended.wait(window_ns / 1e9):
                conditions.append(self._conditions())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            with self._exported("times.json") as (times,):
                said = self._run_engine(
                    artifact,
                    replace(protocol, min_ns=duration_ns),
                    [f"--exportTimes={times}"],
                    on_line=lambda line: begun.set() if "Starting inference" in line else None,
                )
                rows = self._parse(lambda text: trtexec_output.inferences(text, said.lines), times)
        finally:
            ended.set()
            begun.set()
            watcher.join()
        conditions.append(self._conditions())
        windows: dict[int, list[trtexec_output.Inference]] = {}
        for row in rows:
            windows.setdefault((row.start_ns - rows[0].start_ns) // window_ns, []).append(row)
        for number, inside in sorted(windows.items()):
            self.emit(
                "window",
                start_ns=inside[0].start_ns - rows[0].start_ns,
                samples_ns=[row.compute_ns for row in inside],
                conditions=conditions[min(number, len(conditions) - 1)],
            )
        self.emit("finished")

    def _time_canary(self, canary: Path, protocol: MeasuringProtocol) -> None:
        with contextlib.suppress(Failed):  # then the verdict says that there is no canary
            self.emit("canary", samples_ns=self._time(canary, protocol)["samples_ns"])

    def _time(self, artifact: Path, protocol: MeasuringProtocol) -> dict[str, Any]:
        before = self._conditions()
        with self._exported("times.json", "layers.json") as (times, exported):
            arguments = [f"--exportTimes={times}", f"--exportLayerInfo={exported}"]
            said = self._run_engine(artifact, protocol, arguments)
            after = self._conditions()
            rows = self._parse(lambda text: trtexec_output.inferences(text, said.lines), times)
            layers = self._parse(trtexec_output.layers, exported)
        warnings = list(trtexec_output.warnings(said.errors))
        precision = self.call.target.precision
        if trtexec_output.lacks_precision(layers, precision):
            detail = f"no layer of the engine uses {precision}"
            warnings.append({"code": "precision-unused", "detail": detail})
        part = {"where": DELEGATE, "nodes": len(layers), "partitions": 1}
        return {
            "load_ns": trtexec_output.load_ns(said.lines),
            "first_inference_ns": None,
            "samples_ns": [row.compute_ns for row in rows],
            "peak_memory_bytes": None,
            "before": before,
            "after": after,
            "placement": {"delegate": DELEGATE, "parts": [part]},
            "to_device_ns": [row.to_device_ns for row in rows],
            "from_device_ns": [row.from_device_ns for row in rows],
            "warnings": warnings,
        }

    def _run_engine(
        self,
        artifact: Path,
        protocol: MeasuringProtocol,
        arguments: Sequence[str],
        on_line: Callable[[str], None] | None = None,
    ) -> _Said:
        """Run the engine of a file as the protocol says."""
        engine, was_built = self._engine(artifact)
        # One inference at a time, copies told apart, and a host that does not sleep meanwhile. From version
        # 11 on spinning is the default, and so are CUDA graphs and no copies.
        recent = self.found.major >= _STRONGLY_TYPED
        mode = ("--includeDataTransfers", "--noCudaGraph") if recent else ("--useSpinWait",)
        try:
            return self._trtexec(
                (
                    f"--loadEngine={engine}",
                    "--exposeDMA",
                    *mode,
                    f"--warmUp={protocol.warmup_ns / 1e6:g}",
                    f"--iterations={protocol.min_count}",
                    f"--duration={protocol.min_ns / 1e9:g}",
                    *arguments,
                ),
                on_line,
            )
        except Failed as failed:
            if was_built and failed.code == "load-failed":  # damaged: the next attempt builds it again
                self._command("rm", "-f", engine)
            raise

    def _engine(self, artifact: Path) -> tuple[str, bool]:
        """The engine of a file on the device, and whether it is one that was built there."""
        remote = self.call.connection.push(artifact)
        if artifact.suffix != ".onnx":
            return remote, False
        if _EXTERNAL_WEIGHTS.search(artifact.read_bytes()):
            raise Failed("load-failed", "the model's weights are in a file of their own: save it as one file")
        options = self._build_options()
        key = value_digest(
            {
                "model": file_digest(artifact),
                "options": options,
                "version": self.found.version,
                "gpu": self.found.gpu,
            }
        )
        engine = f"{self.found.cache}/{key}.engine"
        if self._ended("test", "-f", engine).returncode == 0:
            return engine, True
        builder = value_digest({"version": self.found.version, "gpu": self.found.gpu})
        timings = f"{self.found.cache}/{builder}.timings"
        partial = f"{engine}.partial"
        arguments = [f"--onnx={remote}", f"--saveEngine={partial}", "--skipInference", *options]
        try:
            self._trtexec([*arguments, f"--timingCacheFile={timings}"])
        except Failed as failed:
            if "timing" not in failed.detail.lower() or "cache" not in failed.detail.lower():
                raise
            self._command("rm", "-f", timings)
            self._trtexec(arguments)
        self._command("mv", "-f", partial, engine)
        return engine, True

    def _build_options(self) -> list[str]:
        target = self.call.target
        precision = () if self.found.major >= _STRONGLY_TYPED else _PRECISION_ARGUMENTS[target.precision]
        tf32 = () if "tf32" in target.settings else ("--noTF32",)
        return ["--profilingVerbosity=detailed", *precision, *tf32]

    def _trtexec(self, arguments: Sequence[str], on_line: Callable[[str], None] | None = None) -> _Said:
        """Run trtexec to its end."""
        lines: list[str] = []

        def read(line: str) -> None:
            lines.append(line)
            if on_line is not None:
                on_line(line)

        ended = self._ended(self.found.tool, *arguments, on_line=read)
        if ended.returncode != 0 or ended.timed_out or not trtexec_output.passed(lines):
            told = None
            if ended.returncode > 0 and not ended.timed_out:
                told = trtexec_output.failure(ended.stderr_tail)
            raise Failed(*(told or describe_end(ended)))
        return _Said(tuple(lines), ended.stderr_tail)

    def _ended(self, *argv: str, on_line: Callable[[str], None] | None = None) -> Completed:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise Failed("timeout", f"nothing was left of {self.call.timeout_s:g} s")
        left_s = min(left_s, self.call.silence_s or left_s)
        ended = self.call.connection.run(argv, timeout_s=left_s, on_line=on_line)
        if ended.lost:
            raise Lost(ended)
        return ended

    def _command(self, *argv: str) -> list[str]:
        lines: list[str] = []
        ended = self._ended(*argv, on_line=lines.append)
        if ended.returncode != 0:
            code, detail = describe_end(ended)
            raise Failed(code, f"'{argv[0]}' failed on the device: {detail}")
        return lines

    def _conditions(self) -> dict[str, Any]:
        connection = self.call.connection
        return {**asdict(read_conditions(connection)), **gpu_conditions(connection)}

    @contextlib.contextmanager
    def _exported(self, *names: str) -> Iterator[tuple[str, ...]]:
        """Paths on the device for files that trtexec writes; removed afterwards."""
        number = uuid.uuid4().hex
        paths = tuple(f"{self._scratch}/{number}-{name}" for name in names)
        try:
            yield paths
        finally:
            with contextlib.suppress(Failed, Lost, TargetError):
                self._command("rm", "-f", *paths)

    def _parse(self, parse: Callable[[str], T], remote: str) -> T:
        """A file of the device, read."""
        with tempfile.TemporaryDirectory(prefix="lathe-") as folder:
            path = Path(folder) / "exported"
            try:
                self.call.connection.pull(remote, path)
                return parse(path.read_text(errors="replace"))
            except (MeasurementError, ValueError) as error:
                name = remote.rpartition("-")[2]
                raise Failed("truncated-output", f"trtexec's {name} cannot be read: {error}") from error
            except TargetError as error:
                raise Lost(Completed(1, str(error), lost=True)) from error
