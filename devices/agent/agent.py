"""Identifies, times and runs models on the machine it is started on.

One JSON request comes in on standard input; one JSON object per line goes out on standard output (``ready``,
then by command ``identity``, or ``started``/``result``/``failed`` per job with ``canary`` between them, or
``operations``, ``window``s and ``finished``, ``outputs``; ``fatal`` instead of ``ready`` when nothing can be
done). Whatever a library prints on standard output is sent to standard error, so that it can never be taken
for an answer.

The other files lie wherever they were pushed, and the request says where: ``machine.py``, which observes the
machine, the *engine*, by which the runtime is reached, and modules that the engine imports.
devices/runtimes/agent_runtime.py says what an engine provides.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import os
import re
import sys
import time
import traceback
import types
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Sequence

PACKAGE = "lathe_agent"
"""What the pushed files are modules of, so that they import each other as ``from .machine import read``."""

COPIES = 20
"""Copies to and from an accelerator that are timed, after the inferences."""


class JobFailed(Exception):
    """A job that cannot go on, with a machine-readable code, and the inputs that it had, as far as known."""

    def __init__(self, code: str, error: BaseException, inputs: Sequence[dict[str, Any]] = ()) -> None:
        bad_input = type(error).__name__ == "BadInputError"
        super().__init__(str(error) if bad_input else f"{type(error).__name__}: {error}"[:2000])
        memory = isinstance(error, MemoryError)
        self.code = "bad-input" if bad_input else "out-of-memory" if memory else code
        self.inputs = list(inputs)


def main() -> int:
    """Read the request, answer it, and return the exit status."""
    request = json.load(sys.stdin)
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if not die_with_parent(request["parent"]):
        return 3

    def emit(event: str, **fields: Any) -> None:
        channel.write(json.dumps({"event": event, **fields}) + "\n")
        channel.flush()

    try:
        choose_cores(request["settings"]["options"].get("cores"))
        modules = load(request["files"])
        on = types.SimpleNamespace(**modules)
        if hasattr(on.engine, "check"):
            on.engine.check(request["settings"])
    except (ImportError, OSError) as error:
        code, lacking = import_failure(error, request["files"].values()), getattr(error, "name", None) or ""
        emit("fatal", code=code, lacking=lacking, detail=f"{type(error).__name__}: {error}")
        return 3
    except ValueError as error:
        emit("fatal", code="bad-option", detail=str(error))
        return 3
    gc.freeze()  # what was imported stays, so that a collection before each timing costs nothing
    spawned_ns = request["spawned_ns"]
    started_ns = on.machine.process_age_ns() if spawned_ns is None else time.monotonic_ns() - spawned_ns
    emit("ready", process_start_ns=started_ns)
    try:
        for event, fields in ANSWERS[request["command"]](on, request):
            emit(event, **fields)
    except JobFailed as failure:
        emit("failed", code=failure.code, detail=str(failure), inputs=failure.inputs)
    return 0


def die_with_parent(parent: int | None) -> bool:
    """Ask Linux to end this process when its parent ends, so that a killed run leaves nothing behind.

    Args:
        parent: the process that started this one, if it is known: it may have ended before the request to
            Linux, and then the answer is False.
    """
    if sys.platform == "linux":
        import ctypes
        import signal

        parent_death_signal = 1
        try:
            ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
        except (OSError, AttributeError):
            return True
    return parent is None or os.getppid() == parent


def parse_cores(text: str) -> set[int]:
    """The cores of a target's option ``cores``, given as ``0-3,6``.

    Raises:
        ValueError: the text has another form.
    """
    if not re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text, re.ASCII):
        raise ValueError(f"cores={text} is not a list of cores such as 0-3,6")
    cores: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if int(last or first) < int(first):
            raise ValueError(f"cores={text} is not a list of cores such as 0-3,6")
        cores |= set(range(int(first), int(last or first) + 1))
    return cores


def choose_cores(text: str | None) -> None:
    """Keep this process, and every thread that it will start, on some cores, given as ``0-3,6``.

    Raises:
        ValueError: the text has another form, or the machine lacks such a core.
    """
    if text is None:
        return
    cores = parse_cores(text)
    allowed = os.sched_getaffinity(0)
    if not cores <= allowed:
        raise ValueError(f"cores={text} names cores that this machine does not offer: {sorted(allowed)}")
    os.sched_setaffinity(0, cores)


def load(files: dict[str, str]) -> dict[str, Any]:
    """Import files as modules of one package, in an order in which each needs those before it alone.

    Raises:
        ImportError: the runtime, or something else that a file imports, is not there or cannot be loaded.
        OSError: there is no such file, or a library that it loads is not there.
    """
    package = types.ModuleType(PACKAGE)
    package.__path__ = []
    sys.modules[PACKAGE] = package
    modules = {}
    for name, path in files.items():
        spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{name}", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        modules[name] = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    return modules


def import_failure(error: Exception, files: Iterable[str]) -> str:
    """``runtime-missing`` where one of the files imports a module that is not there; else ``runtime-broken``.

    Another module that a runtime needs, or a shared library, may lack just as well.
    """
    root = (getattr(error, "name", None) or "").partition(".")[0]
    absent = isinstance(error, ModuleNotFoundError) and root not in sys.modules
    places = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    imports = [place for place in places if not place.startswith("<frozen ")]
    return "runtime-missing" if absent and imports[-1] in files else "runtime-broken"


Answers = Iterator["tuple[str, dict[str, Any]]"]


def measure(on: Any, request: dict[str, Any]) -> Answers:
    """Time each file in turn, and the canary before, between and after them."""
    jobs, protocol = request["jobs"], request["protocol"]
    canary = load_canary(on, request)

    def time_canary() -> Answers:
        if canary is not None:
            warm_up(canary.run, protocol)
            yield "canary", {"samples_ns": time_steadily(canary.run, protocol)}

    yield from time_canary()
    for index, job in enumerate(jobs):
        yield "started", {"job": index}
        try:
            yield "result", {"job": index, **measure_one(on, job, request)}
        except JobFailed as failure:
            told = {"code": failure.code, "detail": str(failure), "inputs": failure.inputs}
            yield "failed", {"job": index, **told}
        if index + 1 == len(jobs) // 2:
            yield from time_canary()
    yield from time_canary()


def load_canary(on: Any, request: dict[str, Any]) -> Any:
    """The canary with its inputs set, or None where the runtime has none, or cannot run it."""
    try:
        if request["canary"] is not None:
            canary = on.engine.Model(request["canary"], request["settings"])
        elif hasattr(on.engine, "canary"):
            canary = on.engine.canary(request["settings"])
        else:
            return None
        canary.set_inputs(on.inputs.fill(canary, request["settings"], request["protocol"]["input_seed"])[0])
        canary.run()
    except Exception as error:
        print(f"the canary does not run: {error}", file=sys.stderr)
        return None
    return canary


def settings_of(job: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """The settings of the request with the inputs that its job is given."""
    return {**request["settings"], **job["given"]}


def measure_one(on: Any, job: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Load, run once, warm up and time one model; all times in nanoseconds."""
    settings, protocol = settings_of(job, request), request["protocol"]
    on.machine.reset_peak_memory()
    before, usage = conditions(on, settings), on.machine.UsageMeter()
    clock = time.perf_counter_ns
    start = clock()
    model = load_model(on, job["artifact"], settings)
    load_ns = clock() - start
    _, told, first_inference_ns = first_run(on, model, settings, protocol["input_seed"])
    try:
        warm_up(model.run, protocol)
        queue = on.machine.QueueMeter()
        samples_ns = time_steadily(model.run, protocol)
        queued, used = queue.until_now(), usage.until_now()
        to_device_ns, from_device_ns = (
            [timed(getattr(model, name)) for _ in range(COPIES)] if hasattr(model, name) else []
            for name in ("copy_in", "copy_out")
        )
        # before the placement, for which some runtimes load the model once more
        peak_bytes = on.machine.peak_memory_bytes()
        parts = model.placement()
        warnings = model.warnings() if hasattr(model, "warnings") else []
    except Exception as error:
        raise JobFailed("run-failed", error, told) from error
    del model
    gc.collect()
    return {
        "load_ns": load_ns,
        "first_inference_ns": first_inference_ns,
        "samples_ns": samples_ns,
        "peak_memory_bytes": peak_bytes,
        "before": before,
        "after": conditions(on, settings),
        "usage": used,
        "queue": queued,
        "placement": None if parts is None else {"delegate": settings["delegate"], "parts": parts},
        "to_device_ns": to_device_ns,
        "from_device_ns": from_device_ns,
        "warnings": warnings,
        "inputs": told,
    }


def conditions(on: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The conditions now, with those of the accelerator."""
    found: dict[str, Any] = on.machine.conditions()
    if hasattr(on.engine, "accelerator_conditions"):
        found.update(on.engine.accelerator_conditions(settings))
    return found


def load_model(on: Any, path: str, settings: dict[str, Any]) -> Any:
    """A loaded model, or JobFailed."""
    try:
        return on.engine.Model(path, settings)
    except Exception as error:
        raise JobFailed("load-failed", error) from error


def first_run(
    on: Any, model: Any, settings: dict[str, Any], seed: int
) -> tuple[list[Any], list[dict[str, Any]], int]:
    """Fill the inputs of a model and run it once: arrays, what is told of them, and the time; or JobFailed.

    Token ids that a model refuses are replaced by those that every model takes.
    """
    told: list[dict[str, Any]] = []
    try:
        arrays, told = on.inputs.fill(model, settings, seed)
        model.set_inputs(arrays)
        start = time.perf_counter_ns()
        model.run()
        return arrays, told, time.perf_counter_ns() - start
    except Exception as error:
        tamer = on.inputs.tamer(settings, told)
        if tamer is None:
            raise JobFailed("run-failed", error, told) from error
        return first_run(on, model, tamer, seed)


def operations(on: Any, request: dict[str, Any]) -> Answers:
    """The time of each operation, by the runtime's own profiler."""
    if not hasattr(on.engine, "operations"):
        raise JobFailed("not-supported", NotImplementedError("this runtime has no profiler of operations"))
    settings, protocol = settings_of(request["job"], request), request["protocol"]
    model = load_model(on, request["job"]["artifact"], settings)
    arrays, _, _ = first_run(on, model, settings, protocol["input_seed"])
    del model
    count = protocol["min_count"]
    try:
        found, total_ns = on.engine.operations(request["job"]["artifact"], settings, arrays, count)
    except NotImplementedError as error:
        raise JobFailed("not-supported", error) from error
    except Exception as error:
        raise JobFailed("run-failed", error) from error
    yield "operations", {"operations": found, "total_ns": total_ns}


def sustain(on: Any, request: dict[str, Any]) -> Answers:
    """Run one model without pause, and tell of each window of time."""
    settings, protocol = settings_of(request["job"], request), request["protocol"]
    model = load_model(on, request["job"]["artifact"], settings)
    first_run(on, model, settings, protocol["input_seed"])
    clock = time.perf_counter_ns
    try:
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
            yield "window", {**told, "conditions": conditions(on, settings)}
    except Exception as error:
        raise JobFailed("run-failed", error) from error
    yield "finished", {}


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


def predict(on: Any, request: dict[str, Any]) -> Answers:
    """Run every row of the input files as a batch of one; write all outputs, flattened, per row."""
    import numpy

    model = load_model(on, request["artifact"], request["settings"])
    try:
        inputs = [numpy.load(path, allow_pickle=False) for path in request["inputs"]]
        expected = [shape for shape, _ in model.inputs]
        given = [(1, *rows.shape[1:]) for rows in inputs]
        if expected != given:
            raise ValueError(f"the model takes {expected}, the data has rows of {given}")
        written = []
        for index in range(len(inputs[0])):
            model.set_inputs([numpy.ascontiguousarray(rows[index : index + 1]) for rows in inputs])
            model.run()
            outputs = [numpy.array(each, dtype=numpy.float32).reshape(-1) for each in model.outputs()]
            written.append(numpy.concatenate(outputs))
        numpy.save(request["outputs"], numpy.stack(written), allow_pickle=False)
    except Exception as error:
        raise JobFailed("run-failed", error) from error
    yield "outputs", {"rows": len(written), "sizes": [len(each) for each in outputs]}


def identify(on: Any, request: dict[str, Any]) -> Answers:
    """Who runs here, and on what."""
    device = on.machine.identity()
    if hasattr(on.engine, "accelerator"):
        device["accelerator"] = on.engine.accelerator(request["settings"])
    yield "identity", {"runtime": identify_runtime(on.engine), "device": device}


def identify_runtime(engine: Any) -> dict[str, str]:
    """Version of the runtime, and one digest over its native files."""
    digest = hashlib.sha256()
    for path in sorted(engine.binaries()):
        with Path(path).open("rb") as stream:
            for chunk in iter(lambda: stream.read(1 << 20), b""):
                digest.update(chunk)
    return {"version": engine.version(), "binary_digest": digest.hexdigest()}


ANSWERS = {
    "identify": identify,
    "measure": measure,
    "operations": operations,
    "sustain": sustain,
    "predict": predict,
}

if __name__ == "__main__":
    sys.exit(main())
