"""ONNX Runtime: the graph optimised ahead of time and saved, so that the device need not do it.

At level ``all`` the saved graph may hold operators that suit this CPU alone (the NCHWc layout, whose block
follows the vector width), and its notes name the CPU. At level ``extended`` any CPU with the same runtime
runs it. Level ``basic`` leaves operators of the ONNX standard alone: the fused ones of ``extended`` are the
CPU's, and an execution provider that does not know them would leave them to the CPU. Loading an optimised
model with optimisation on is harmless, and outputs stay the same.

Source: page "Graph Optimizations" of ONNX Runtime's documentation.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata, util
from pathlib import Path

from devices.host import temporary_folder
from devices.installing import how_to_install
from devices.target import Target
from pipeline.errors import ExportError
from pipeline.export import onnx_graph
from pipeline.export.process import run_quietly
from pipeline.work.disk import write_atomically

_TIMEOUT_S = 600

# In a process of its own: the runtime warns on standard error from C and keeps its threads.
_PROGRAM = """
import sys
import onnxruntime
source, optimised, level, threads = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
options.optimized_model_filepath = optimised
options.intra_op_num_threads = int(threads)
options.log_severity_level = 3
onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
"""


def optimise_for_this_cpu(exported: Path, target: Target, path: Path) -> Mapping[str, str]:
    """Write ``path``: the graph as ONNX Runtime optimises it on this machine when it loads ``exported``.

    Raises:
        ExportError: ONNX Runtime is not installed, or refuses the model.
    """
    return {**_optimise(exported, target, path, "all"), "cpu": _cpu()}


def optimise_for_any_cpu(exported: Path, target: Target, path: Path) -> Mapping[str, str]:
    """Write ``path``: the graph optimised as far as every CPU runs it.

    Raises:
        ExportError: ONNX Runtime is not installed, or refuses the model.
    """
    return {**_optimise(exported, target, path, "extended"), "cpu": "any"}


def optimise_for_accelerators(exported: Path, target: Target, path: Path) -> Mapping[str, str]:
    """Write ``path``: the graph simplified, with operators that every execution provider may take.

    Raises:
        ExportError: ONNX Runtime is not installed, or refuses the model.
    """
    return {**_optimise(exported, target, path, "basic"), "cpu": "any"}


def _optimise(exported: Path, target: Target, path: Path, level: str) -> Mapping[str, str]:
    for package in ("onnxruntime", "onnx"):
        if util.find_spec(package) is None:
            raise ExportError(
                f"{exported.name} cannot be compiled for {target}",
                why=f"the package {package} is not installed",
                fix=how_to_install("onnxruntime"),
            )
    with temporary_folder("compile") as folder:
        optimised = folder / "optimised.onnx"
        arguments = [str(exported), str(optimised), f"ORT_ENABLE_{level.upper()}", str(target.threads)]
        command = (sys.executable, "-P", "-c", _PROGRAM, *arguments)
        try:
            ended = run_quietly(command, folder, {}, _TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ExportError(
                f"ONNX Runtime did not finish compiling {exported.name}",
                why=f"it ran for more than {_TIMEOUT_S} s",
            ) from None
        if ended.returncode != 0 or not optimised.exists():
            said = ended.stdout.decode(errors="replace").strip().splitlines()
            raise ExportError(
                f"ONNX Runtime cannot compile {exported.name}",
                why=said[-1] if said else f"it ended with status {ended.returncode}",
                fix="check that the file is a whole ONNX model whose operators the runtime has",
            )
        write_atomically(path, _tidied(optimised))
    return {"onnxruntime": metadata.version("onnxruntime"), "graph_optimization": level}


def _tidied(optimised: Path) -> bytes:
    """The saved model with names by position: the runtime's own differ from one run to the next."""
    import onnx

    model = onnx.load(optimised)
    onnx_graph.tidy(model, model.graph.output[0].name)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _cpu() -> str:
    """Name of this machine's processor, or its architecture where the system does not tell."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
