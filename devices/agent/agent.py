"""Identifies, times and runs models on the machine it is started on.

One JSON request comes in on standard input; one JSON object per line goes out on standard output (``ready``,
then by command ``identity``, or ``started``/``result``/``failed`` per job, or ``outputs``; ``fatal`` instead
of ``ready`` when the runtime cannot be imported). Whatever a library prints on standard output is sent to
standard error, so that it can never be taken for an answer.

The runtime is reached through an *engine*, a file named in the request; devices/runtimes/base.py says what
an engine provides.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any, Callable


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
        engine = load_engine(request["engine"])
    except (ImportError, OSError) as error:
        emit("fatal", code="runtime-missing", detail=f"{type(error).__name__}: {error}")
        return 3
    gc.freeze()  # what was imported stays, so that a collection before each timing costs nothing
    emit("ready", process_start_ns=time.monotonic_ns() - request["spawned_ns"])
    if request["command"] == "identify":
        emit("identity", runtime=identify_runtime(engine), device=identify_device())
    elif request["command"] == "measure":
        for index, path in enumerate(request["artifacts"]):
            emit("started", job=index)
            try:
                emit("result", job=index, **measure(engine, path, request["settings"], request["protocol"]))
            except JobFailed as failure:
                emit("failed", job=index, code=failure.code, detail=str(failure))
    elif request["command"] == "predict":
        try:
            emit("outputs", rows=predict(engine, request))
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


def load_engine(path: str) -> Any:
    """Import the engine file; ImportError when the runtime is not installed."""
    spec = importlib.util.spec_from_file_location("engine", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    engine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(engine)
    return engine


def measure(engine: Any, path: str, settings: dict[str, Any], protocol: dict[str, Any]) -> dict[str, Any]:
    """Load, run once, warm up and time one model; all times in nanoseconds."""
    reset_peak_memory()
    before = conditions()
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
    except Exception as error:
        raise JobFailed("run-failed", error) from error
    del model
    gc.collect()
    return {
        "load_ns": load_ns,
        "first_inference_ns": first_inference_ns,
        "samples_ns": samples_ns,
        "peak_memory_bytes": peak_memory_bytes(),
        "before": before,
        "after": conditions(),
    }


def load_model(engine: Any, path: str, settings: dict[str, Any]) -> Any:
    """A loaded model, or JobFailed."""
    try:
        return engine.Model(path, settings)
    except Exception as error:
        raise JobFailed("load-failed", error) from error


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


def predict(engine: Any, request: dict[str, Any]) -> int:
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
    return len(outputs)


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
    }


def cpu_name() -> str:
    """The name of the processor: x86 and some ARM kernels state it, boards have it in the device tree."""
    for line in (read("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Hardware"):
            return value.strip()
    board = read("/proc/device-tree/model")
    return board.strip("\0") if board else platform.processor() or platform.machine()


def conditions() -> dict[str, Any]:
    """Load, memory, frequencies, governor, temperatures and throttling now; None where unreadable."""
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


if __name__ == "__main__":
    sys.exit(main())
