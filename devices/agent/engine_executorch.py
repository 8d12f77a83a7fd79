"""Engine of ExecuTorch on the CPU: ``.pte`` programs, with XNNPACK or other delegates that are in them.

``run`` hands the inputs to the program and executes it. A program may plan memory for its inputs: ExecuTorch
copies them there in each inference, and what the program does later may lie in the same memory. A program
that plans none reads them where they are.

Sources: ExecuTorch 1.5, pages "Runtime Python API Reference", "ETDump" and "Memory Planning" of its
documentation; ``extension/pybindings/pybindings.pyi``; the schemas ``program.fbs`` and
``etdump_schema_flatcc.fbs`` that its package contains.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Iterator

import torch
from executorch.extension.pybindings import _C as runtime  # portable_lib beside it imports all exporters

from .inputs import shapes_of

METHOD = "forward"

DTYPES = {
    0: torch.uint8,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.int64,
    5: torch.float16,
    6: torch.float32,
    7: torch.float64,
    11: torch.bool,
}
"""The types of tensors by the number of ``ScalarType``."""

KERNELS = {"fp16": r"\bP?F16", "int8": r"\bQ[CDPSU]+8"}
"""What XNNPACK writes in the names of operations that ran in a precision, as in ``(NHWC, QS8, QC8W)``."""

PACKAGE = Path(runtime.__file__).parent.parent.parent
FLATC = PACKAGE / "data" / "bin" / "flatc"
PROGRAM = PACKAGE / "exir" / "_serialize" / "program.fbs"
ETDUMP = PACKAGE / "devtools" / "etdump" / "etdump_schema_flatcc.fbs"


def version() -> str:
    """Version of ExecuTorch."""
    return importlib.metadata.version("executorch")


def binaries() -> list[str]:
    """The native files of ExecuTorch's runtime."""
    return [str(runtime.__file__), *(str(path) for path in (PACKAGE / "lib").glob("*.so"))]


class Model:
    """The method ``forward`` of a program; an open dimension of an input takes its largest size.

    Raises:
        ValueError: the program has no such method, an input is not a tensor of numbers, or ExecuTorch lacks
            operators or delegates of the program, which are named.
        RuntimeError: ExecuTorch cannot load the file.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        self._path, self._settings = path, settings
        self._method = _method(_program(path, settings), path)
        meta = self._method.method_meta()
        infos = [meta.input_tensor_meta(index) for index in range(meta.num_inputs())]
        unknown = [info.dtype() for info in infos if info.dtype() not in DTYPES]
        if unknown:
            raise ValueError(f"an input has ExecuTorch's type {unknown[0]}, which cannot be filled")
        self.inputs = [
            (tuple(int(size) for size in info.sizes()), str(DTYPES[info.dtype()])[len("torch.") :])
            for info in infos
        ]
        self.described = [(f"input_{index}", shape) for index, (shape, _) in enumerate(self.inputs)]
        shapes_of(self.described, settings)
        self._tensors: list[Any] = []

    def set_inputs(self, arrays: list[Any]) -> None:
        """Copy the arrays into tensors, which each inference reads."""
        self._tensors = [torch.tensor(array) for array in arrays]

    def run(self) -> None:
        """One inference on the inputs that were set."""
        self._method.set_inputs(self._tensors)
        self._method.execute()

    def outputs(self) -> list[Any]:
        """Copies of the last outputs."""
        return [tensor.numpy().copy() for tensor in self._method.get_outputs(clone_outputs=True)]

    def placement(self) -> list[dict[str, Any]] | None:
        """Operations and stretches of each delegate and of ExecuTorch's own kernels (``cpu``).

        XNNPACK tells its operations in one more inference, in a program of its own; another delegate's share
        counts as one. None where the package has no reader for what ExecuTorch writes.
        """
        if not FLATC.exists():
            return None
        events = self._events()
        places = [event["where"] for event in events]
        calls = [where for where, _ in itertools.groupby((event["where"], event["call"]) for event in events)]
        stretches = [where for where, _ in itertools.groupby(places)]
        return [
            {
                "where": where,
                "nodes": places.count(where),
                "partitions": stretches.count(where)
                if where == "cpu"
                else [w for w, _ in calls].count(where),
            }
            for where in dict.fromkeys(places)
        ]

    def warnings(self) -> list[dict[str, Any]]:
        """Whether no operation was computed in the precision of the target, as far as XNNPACK tells."""
        precision = self._settings["precision"]
        if precision not in KERNELS or not FLATC.exists():
            return []
        kinds = [event["kind"] for event in self._events()]
        if any(re.search(KERNELS[precision], kind) for kind in kinds):
            return []
        return [{"code": "precision-unused", "detail": f"no operation computes in {precision}"}]

    def _events(self) -> list[dict[str, Any]]:
        arrays = [tensor.numpy() for tensor in self._tensors]
        return _profile(self._path, self._settings, arrays, 1)[1][0]


def operations(
    path: str, settings: dict[str, Any], arrays: list[Any], count: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """Time of each operation by ExecuTorch's ETDump; XNNPACK counts its own in microseconds.

    Raises:
        NotImplementedError: the package has no reader for what ExecuTorch writes.
    """
    if not FLATC.exists():
        raise NotImplementedError(f"ETDump cannot be read: {FLATC} is missing")
    total_ns, runs = _profile(path, settings, arrays, count)
    found = [
        {"name": f"{event['kind']}_{index}", "kind": event["kind"], "where": event["where"], "samples_ns": []}
        for index, event in enumerate(runs[0])
    ]
    for run in runs:
        if [event["kind"] for event in run] != [entry["kind"] for entry in found]:
            raise RuntimeError("the model does not execute the same operations each time")
        for entry, event in zip(found, run):
            entry["samples_ns"].append(event["duration_ns"])
    return found, total_ns


def _program(path: str, settings: dict[str, Any], *, profiled: bool = False) -> Any:
    """A program with the threads of the target, which all programs of a process share."""
    threads = settings["threads"]
    if runtime._threadpool_get_thread_count() != threads:
        runtime._unsafe_reset_threadpool(threads)  # unsafe for programs that are loaded: there are none yet
    used = runtime._threadpool_get_thread_count()
    if used != threads:
        raise ValueError(f"ExecuTorch uses {used} threads here when asked for {threads}")
    return runtime._load_program(
        path, enable_etdump=profiled, program_verification=runtime.Verification.InternalConsistency
    )


def _method(program: Any, path: str) -> Any:
    """The method ``forward``."""
    names = [program.get_method_name(index) for index in range(program.num_methods())]
    if METHOD not in names:
        raise ValueError(f"the program has no method '{METHOD}', only {', '.join(names)}")
    try:
        return program.load_method(METHOD)
    except RuntimeError as error:  # the reason is on standard error
        missing = sorted(_missing(path)) if FLATC.exists() else []
        if missing:
            raise ValueError(f"this ExecuTorch {version()} lacks {', '.join(missing)}") from error
        raise


def _missing(path: str) -> Iterator[str]:
    """Operators and delegates of a program that this ExecuTorch has not."""
    plan = _plan(path)
    names = [".".join(filter(None, (each["name"], each["overload"]))) for each in plan["operators"]]
    yield from set(names) - set(runtime._get_operator_names())
    yield from {each["id"] for each in plan["delegates"]} - set(runtime._get_registered_backend_names())


def _plan(path: str) -> Any:
    """The execution plan of ``forward``, by the schema of programs."""
    plans = _decoded(PROGRAM, path)["execution_plan"]
    return next(plan for plan in plans if plan["name"] == METHOD)


def _decoded(schema: Path, path: str, *options: str) -> Any:
    """What is in a flatbuffer, by the tool that is in ExecuTorch's package."""
    with tempfile.TemporaryDirectory(prefix="lathe-") as folder:
        form = ("--json", "--defaults-json", "--strict-json", "--raw-binary", *options)
        command = [str(FLATC), *form, "-o", folder, str(schema), "--", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (written,) = Path(folder).iterdir()
        return json.loads(written.read_text(errors="replace"))


def _profile(
    path: str, settings: dict[str, Any], arrays: list[Any], count: int
) -> tuple[list[int], list[list[dict[str, Any]]]]:
    """Profile inferences after one to warm up: the time of each, and the operations of each in order."""
    program = _program(path, settings, profiled=True)
    method = _method(program, path)
    tensors = [torch.tensor(array) for array in arrays]
    for _ in range(1 + count):
        method.set_inputs(tensors)
        method.execute()
    with tempfile.TemporaryDirectory(prefix="lathe-") as folder:
        dump = str(Path(folder) / "etdump")
        program.write_etdump_result_to_file(dump)
        blocks = _decoded(ETDUMP, dump, "--size-prefixed")["run_data"]
    plan = _plan(path)
    runs = [block["events"] for block in blocks if block.get("name") == "Execute"][1:]
    events = [[each["profile_event"] for each in run if "profile_event" in each] for run in runs]
    total_ns = [
        _duration_ns(event) for run in events for event in run if event.get("name") == "Method::execute"
    ]
    return total_ns, [list(_operations(run, plan)) for run in events]


def _operations(run: list[dict[str, Any]], plan: Any) -> Iterator[dict[str, Any]]:
    """The operations of one inference; those in a delegate come before the call of the delegate."""
    inner: list[dict[str, Any]] = []
    for event in run:
        name, call = event.get("name"), (event["chain_index"], event["instruction_id"])
        if name is None:
            inner.append(event)
        elif name == "DELEGATE_CALL":
            instruction = plan["chains"][call[0]]["instructions"][call[1]]
            where = plan["delegates"][instruction["instr_args"]["delegate_index"]]["id"]
            for each in inner or [{**event, "delegate_debug_id_str": where}]:
                kind = re.sub(r" #\d+$", "", each["delegate_debug_id_str"])
                yield {"kind": kind, "where": where, "call": call, "duration_ns": _duration_ns(each)}
            inner = []
        elif name == "OPERATOR_CALL":
            instruction = plan["chains"][call[0]]["instructions"][call[1]]
            kind = plan["operators"][instruction["instr_args"]["op_index"]]["name"]
            yield {"kind": kind, "where": "cpu", "call": call, "duration_ns": _duration_ns(event)}


def _duration_ns(event: dict[str, Any]) -> int:
    return int(event["end_time"]) - int(event["start_time"])
