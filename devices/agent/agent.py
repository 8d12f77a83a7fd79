"""Identifies, times and runs models on the machine it is started on.

One JSON request comes in on standard input; one JSON object per line goes out on standard output (``ready``,
then by command ``identity``, or ``started``/``result``/``failed`` per job with ``canary`` between them, or
``operations``, ``window``s and ``finished``, ``outputs``; ``fatal`` instead of ``ready`` when nothing can be
done). Whatever a library prints on standard output is sent to standard error, so that it can never be taken
for an answer.

The runtime is reached through an *engine*, a file named in the request; devices/runtimes/agent.py says what
an engine provides.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

COPIES = 20
"""Copies to and from an accelerator that are timed, after the inferences."""


class JobFailed(Exception):
    """A job that cannot go on, with a machine-readable code."""

    def __init__(self, code: str, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}"[:2000])
        self.code = "out-of-memory" if isinstance(error, MemoryError) else code


def main() -> int:
    """Read the request, answer it, and return the exit status."""
    request = json.load(sys.stdin)
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    die_with_parent()

    def emit(event: str, **fields: Any) -> None:
        channel.write(json.dumps({"event": event, **fields}) + "\n")
        channel.flush()

    try:
        choose_cores(request["settings"]["options"].get("cores"))
        engine = load_engine(request["engine"])
        if hasattr(engine, "check"):
            engine.check(request["settings"])
    except (ImportError, OSError) as error:
        emit("fatal", code="runtime-missing", detail=f"{type(error).__name__}: {error}")
        return 3
    except ValueError as error:
        emit("fatal", code="bad-option", detail=str(error))
        return 3
    gc.freeze()  # what was imported stays, so that a collection before each timing costs nothing
    emit("ready", process_start_ns=process_start_ns(request["spawned_ns"]))
    try:
        for event, fields in ANSWERS[request["command"]](engine, request):
            emit(event, **fields)
    except JobFailed as failure:
        emit("failed", code=failure.code, detail=str(failure))
    return 0


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, so that a killed run leaves nothing behind."""
    if sys.platform == "linux":
        import ctypes
        import signal

        parent_death_signal = 1
        try:
            ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
        except (OSError, AttributeError):
            return


def choose_cores(text: str | None) -> None:
    """Keep this process, and every thread that it will start, on some cores, given as ``0-3,6``.

    Raises:
        ValueError: the text has another form, or the machine lacks such a core.
    """
    if text is None:
        return
    if not re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text, re.ASCII):
        raise ValueError(f"cores={text} is not a list of cores such as 0-3,6")
    cores: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    allowed = os.sched_getaffinity(0)
    if not cores or not cores <= allowed:
        raise ValueError(f"cores={text} names cores that this machine does not offer: {sorted(allowed)}")
    os.sched_setaffinity(0, cores)


def process_start_ns(spawned_ns: int | None) -> int | None:
    """From the start of this process until now: exact on the host, to a tick of 10 ms elsewhere."""
    if spawned_ns is not None:
        return time.monotonic_ns() - spawned_ns
    stat = read("/proc/self/stat")
    if stat is None or not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    started_ticks = int(stat.rpartition(")")[2].split()[19])
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started_ticks * TICK_NS


def load_engine(path: str) -> Any:
    """Import the engine file; ImportError when the runtime is not installed."""
    spec = importlib.util.spec_from_file_location("engine", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    engine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(engine)
    return engine


Answers = Iterator["tuple[str, dict[str, Any]]"]


def measure(engine: Any, request: dict[str, Any]) -> Answers:
    """Time each file in turn, and the canary before, between and after them."""
    paths, settings, protocol = request["artifacts"], request["settings"], request["protocol"]
    canary = load_canary(engine, request)

    def time_canary() -> Answers:
        if canary is not None:
            warm_up(canary.run, protocol)
            yield "canary", {"samples_ns": time_steadily(canary.run, protocol)}

    yield from time_canary()
    for index, path in enumerate(paths):
        yield "started", {"job": index}
        try:
            yield "result", {"job": index, **measure_one(engine, path, request, settings, protocol)}
        except JobFailed as failure:
            yield "failed", {"job": index, "code": failure.code, "detail": str(failure)}
        if index + 1 == len(paths) // 2:
            yield from time_canary()
    yield from time_canary()


def load_canary(engine: Any, request: dict[str, Any]) -> Any:
    """The canary with its inputs set, or None where the runtime has none, or cannot run it."""
    try:
        if request["canary"] is not None:
            canary = engine.Model(request["canary"], request["settings"])
        elif hasattr(engine, "canary"):
            canary = engine.canary(request["settings"])
        else:
            return None
        canary.set_inputs(random_inputs(canary.inputs, request["protocol"]["input_seed"]))
        canary.run()
    except Exception as error:
        print(f"the canary does not run: {error}", file=sys.stderr)
        return None
    return canary


def measure_one(
    engine: Any, path: str, request: dict[str, Any], settings: dict[str, Any], protocol: dict[str, Any]
) -> dict[str, Any]:
    """Load, run once, warm up and time one model; all times in nanoseconds."""
    reset_peak_memory()
    before, usage = conditions(engine, settings), Usage()
    clock = time.perf_counter_ns
    start = clock()
    model = load_model(engine, path, settings)
    load_ns = clock() - start
    try:
        model.set_inputs(random_inputs(model.inputs, protocol["input_seed"]))
        start = clock()
        model.run()
        first_inference_ns = clock() - start
        warm_up(model.run, protocol)
        samples_ns = time_steadily(model.run, protocol)
        used = usage.until_now()
        to_device_ns, from_device_ns = (
            [timed(getattr(model, name)) for _ in range(COPIES)] if hasattr(model, name) else []
            for name in ("copy_in", "copy_out")
        )
        peak = peak_memory_bytes()  # before the placement, for which some runtimes load the model once more
        parts = model.placement()
        warnings = model.warnings() if hasattr(model, "warnings") else []
    except Exception as error:
        raise JobFailed("run-failed", error) from error
    del model
    gc.collect()
    return {
        "load_ns": load_ns,
        "first_inference_ns": first_inference_ns,
        "samples_ns": samples_ns,
        "peak_memory_bytes": peak,
        "before": before,
        "after": conditions(engine, settings),
        "usage": used,
        "placement": None if parts is None else {"delegate": request["delegate"], "parts": parts},
        "to_device_ns": to_device_ns,
        "from_device_ns": from_device_ns,
        "warnings": warnings,
    }


def load_model(engine: Any, path: str, settings: dict[str, Any]) -> Any:
    """A loaded model, or JobFailed."""
    try:
        return engine.Model(path, settings)
    except Exception as error:
        raise JobFailed("load-failed", error) from error


def operations(engine: Any, request: dict[str, Any]) -> Answers:
    """The time of each operation, by the runtime's own profiler."""
    settings, protocol = request["settings"], request["protocol"]
    if not hasattr(engine, "operations"):
        raise JobFailed("not-supported", NotImplementedError("this runtime has no profiler of operations"))
    model = load_model(engine, request["artifact"], settings)
    arrays = random_inputs(model.inputs, protocol["input_seed"])
    del model
    try:
        found, total_ns = engine.operations(request["artifact"], settings, arrays, protocol["min_count"])
    except NotImplementedError as error:
        raise JobFailed("not-supported", error) from error
    except Exception as error:
        raise JobFailed("run-failed", error) from error
    yield "operations", {"operations": found, "total_ns": total_ns}


def sustain(engine: Any, request: dict[str, Any]) -> Answers:
    """Run one model without pause, and tell of each window of time."""
    settings, protocol = request["settings"], request["protocol"]
    model = load_model(engine, request["artifact"], settings)
    clock = time.perf_counter_ns
    try:
        model.set_inputs(random_inputs(model.inputs, protocol["input_seed"]))
        begin = clock()
        while True:
            window_ns = min(request["window_ns"], request["duration_ns"] - (clock() - begin))
            if window_ns <= 0:
                break
            start_ns = clock() - begin
            samples_ns = time_steadily(
                model.run,
                {"min_count": 1, "min_ns": window_ns, "max_count": sys.maxsize, "max_ns": sys.maxsize},
            )
            step = -(-len(samples_ns) // protocol["max_count"])
            told = {"start_ns": start_ns, "count": len(samples_ns), "samples_ns": samples_ns[::step]}
            yield "window", {**told, "conditions": conditions(engine, settings)}
    except Exception as error:
        raise JobFailed("run-failed", error) from error
    yield "finished", {}


def random_inputs(inputs: list[tuple[tuple[int, ...], str]], seed: int) -> list[Any]:
    """Standard normal values for float inputs, zeros and ones for all others."""
    import numpy

    generator = numpy.random.default_rng(seed)
    arrays = []
    for shape, dtype in inputs:
        if dtype.startswith("float"):
            arrays.append(generator.standard_normal(shape, dtype=numpy.float32).astype(dtype))
        else:
            arrays.append(generator.integers(0, 2, shape).astype(dtype))
    return arrays


def warm_up(run: Callable[[], None], protocol: dict[str, Any]) -> None:
    """Run until both the count and the time of the warm-up are reached, or the cap on time."""
    clock = time.perf_counter_ns
    start = clock()
    count = 0
    while True:
        run()
        count += 1
        elapsed = clock() - start
        if (count >= protocol["warmup_count"] and elapsed >= protocol["warmup_ns"]) or elapsed >= protocol[
            "max_ns"
        ]:
            return


def time_steadily(run: Callable[[], None], protocol: dict[str, Any]) -> list[int]:
    """One duration per inference, until both minima or one of the caps are reached; no garbage collection."""
    clock = time.perf_counter_ns
    min_count, min_ns = protocol["min_count"], protocol["min_ns"]
    max_count, max_ns = protocol["max_count"], protocol["max_ns"]
    samples: list[int] = []
    gc.collect()
    gc.disable()
    try:
        begin = clock()
        while True:
            start = clock()
            run()
            end = clock()
            samples.append(end - start)
            count, elapsed = len(samples), end - begin
            if (count >= min_count and elapsed >= min_ns) or count >= max_count or elapsed >= max_ns:
                return samples
    finally:
        gc.enable()


def timed(run: Callable[[], None]) -> int:
    """How long one call takes."""
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start


def predict(engine: Any, request: dict[str, Any]) -> Answers:
    """Run every row of the input file as a batch of one; write the first output, flattened, per row."""
    import numpy

    model = load_model(engine, request["artifact"], request["settings"])
    try:
        rows = numpy.load(request["inputs"], allow_pickle=False)
        expected = [shape for shape, _ in model.inputs]
        if expected != [(1, *rows.shape[1:])]:
            raise ValueError(f"the model takes {expected}, the data has rows of shape {rows.shape[1:]}")
        outputs = []
        for index in range(len(rows)):
            model.set_inputs([numpy.ascontiguousarray(rows[index : index + 1])])
            model.run()
            outputs.append(numpy.array(model.outputs()[0], dtype=numpy.float32).reshape(-1))
        numpy.save(request["outputs"], numpy.stack(outputs), allow_pickle=False)
    except Exception as error:
        raise JobFailed("run-failed", error) from error
    yield "outputs", {"rows": len(outputs)}


def identify(engine: Any, request: dict[str, Any]) -> Answers:
    """Who runs here, and on what."""
    device = identify_device()
    if hasattr(engine, "accelerator"):
        device["accelerator"] = engine.accelerator(request["settings"])
    yield "identity", {"runtime": identify_runtime(engine), "device": device}


def identify_runtime(engine: Any) -> dict[str, str]:
    """Version of the runtime, and one digest over its native files."""
    digest = hashlib.sha256()
    for path in sorted(engine.binaries()):
        with Path(path).open("rb") as stream:
            for chunk in iter(lambda: stream.read(1 << 20), b""):
                digest.update(chunk)
    return {"version": engine.version(), "binary_digest": digest.hexdigest()}


def identify_device() -> dict[str, Any]:
    """What kind of machine this is, and a digest that tells it from others of its kind."""
    machine_id = read("/etc/machine-id") or platform.node()
    release = dict(line.split("=", 1) for line in (read("/etc/os-release") or "").splitlines() if "=" in line)
    return {
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "os": release.get("PRETTY_NAME", platform.system()).strip('"'),
        "kernel": platform.release(),
        "instance": hashlib.sha256(machine_id.encode()).hexdigest(),
        "emulated": is_emulated(),
    }


def is_emulated() -> bool:
    """Whether another kind of processor runs this interpreter's code, as under QEMU's user mode.

    The kernel tells which program it started, and that is the emulator, a program for the real processor.
    QEMU hides that in /proc/self and /proc/PID, but not in /proc/thread-self (seen with 7.2).
    """
    ours, started = elf_machine(sys.executable), elf_machine("/proc/thread-self/exe")
    return ours is not None and started is not None and ours != started


def elf_machine(path: str) -> bytes | None:
    """The processor that a program is for, as its ELF header has it; None where there is no such program."""
    try:
        with Path(path).open("rb") as stream:
            header = stream.read(20)
    except OSError:
        return None
    return header[18:20] if header.startswith(b"\x7fELF") else None


def cpu_name() -> str:
    """The name of the processor: x86 and some ARM kernels state it, boards have it in the device tree."""
    for line in (read("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Hardware"):
            return value.strip()
    board = read("/proc/device-tree/model")
    return board.strip("\0") if board else platform.processor() or platform.machine()


def conditions(engine: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Load, memory, clocks, governor, temperatures, throttling and battery now; None where unreadable."""
    cpus = Path("/sys/devices/system/cpu")
    governors = {read(path) or "" for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    throttled = read_numbers(cpus, "cpu[0-9]*/thermal_throttle/core_throttle_count")
    load = read("/proc/loadavg")
    available = [
        line.split()[1]
        for line in (read("/proc/meminfo") or "").splitlines()
        if line.startswith("MemAvailable:")
    ]
    return {
        "load_1min": float(load.split()[0]) if load else None,
        "memory_available_bytes": int(available[0]) * 1024 if available else None,
        "cpu_frequency_khz": read_numbers(cpus, "cpu[0-9]*/cpufreq/scaling_cur_freq"),
        "governor": ",".join(sorted(governors)) or None,
        "temperature_millicelsius": read_numbers(Path("/sys/class/thermal"), "thermal_zone*/temp"),
        "throttle_count": sum(throttled) if throttled else None,
        **battery(),
        **(engine.accelerator_conditions(settings) if hasattr(engine, "accelerator_conditions") else {}),
    }


def battery() -> dict[str, Any]:
    """Charge of the first battery in percent, and whether mains power is there; nothing without a battery."""
    for supply in sorted(Path("/sys/class/power_supply").glob("*")):
        percent = read(supply / "capacity")
        if read(supply / "type") == "Battery" and percent is not None and percent.isdigit():
            return {"battery_percent": int(percent), "charging": read(supply / "status") != "Discharging"}
    return {}


TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Usage:
    """What the processors do from now on; see ``devices.measurement.Usage``."""

    def __init__(self) -> None:
        self._start = self._read()

    def until_now(self) -> dict[str, Any]:
        """The fields of a Usage."""
        start, end = self._start, self._read()
        spent: dict[str, Any] = {
            name: None if value is None or start[name] is None else value - start[name]
            for name, value in end.items()
        }
        busy = spent.pop("busy_ns")
        return {
            "wall_ns": spent["monotonic_ns"],
            "own_cpu_ns": spent["own_cpu_ns"],
            "waiting_ns": spent["waiting_ns"],
            "other_cpu_ns": None if busy is None else max(0, busy - spent["own_cpu_ns"]),
            "stolen_ns": spent["stolen_ns"],
            "clock_jump_ns": spent["wall_clock_ns"] - spent["monotonic_ns"],
        }

    @staticmethod
    def _read() -> dict[str, Any]:
        scheduled = (read("/proc/self/schedstat") or "").split()
        ticks = [int(value) for value in (read("/proc/stat") or "").partition("\n")[0].split()[1:9]]
        return {
            "monotonic_ns": time.perf_counter_ns(),
            "wall_clock_ns": time.time_ns(),
            "own_cpu_ns": time.process_time_ns(),
            "waiting_ns": int(scheduled[1]) if len(scheduled) == 3 else None,
            # user, nice, system, irq, softirq; not idle, iowait, and steal, which is told apart
            "busy_ns": TICK_NS * (sum(ticks[:3]) + sum(ticks[5:7])) if len(ticks) == 8 else None,
            "stolen_ns": TICK_NS * ticks[7] if len(ticks) == 8 else None,
        }


def read(path: str | Path) -> str | None:
    """A small text file without its last line end, or None."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None


def read_numbers(folder: Path, pattern: str) -> list[int] | None:
    """The integers in all files that match, in the order of their names; None when there are none."""
    texts = [read(path) for path in sorted(folder.glob(pattern))]
    return [int(text) for text in texts if text and text.lstrip("-").isdigit()] or None


def reset_peak_memory() -> None:
    """Let the peak of resident memory start anew, where the kernel permits it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """Peak resident memory of this process; an upper bound for a model that was not the first in it."""
    for line in (read("/proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


ANSWERS = {
    "identify": identify,
    "measure": measure,
    "operations": operations,
    "sustain": sustain,
    "predict": predict,
}

if __name__ == "__main__":
    sys.exit(main())
