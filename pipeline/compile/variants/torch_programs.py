"""Variants of programs of ``torch.export``: as they come, compiled by AOTInductor, and for ExecuTorch.

Sources: see ``pipeline.compile.steps.torch_programs``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from platformdirs import user_cache_path

from devices.host import temporary_folder
from devices.installing import how_to_install
from devices.inventory import HOST
from devices.target import Target
from pipeline.compile.child import call
from pipeline.compile.processors import processor_name
from pipeline.compile.variants.base import CompileTask, CompileVariant, ModelFormat
from pipeline.errors import ExportError
from pipeline.work.disk import write_atomically


def _as_it_comes(task: CompileTask, path: Path) -> Mapping[str, str]:
    write_atomically(path, task.model.read_bytes())
    return {"executed": "eagerly, one operation after the other", "cpu": "any"}


@dataclass(frozen=True)
class AotInductor:
    """Native code for this machine's processor, by its C++ compiler.

    Attributes:
        frozen: see ``pipeline.compile.steps.torch_programs.compile_ahead``.
    """

    frozen: bool

    def __call__(self, task: CompileTask, path: Path) -> Mapping[str, str]:
        """Write the package."""
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise ExportError(
                f"{task.model.name} cannot be compiled for {task.target}",
                why=f"AOTInductor needs a C++ compiler, and there is no {compiler}",
                fix="install one (Debian, Ubuntu: apt install g++), or name it in CXX",
            )
        folder = user_cache_path("lathe", appauthor=False) / "aotinductor"
        folder.mkdir(parents=True, exist_ok=True)
        # The name of the folder is written into the package, so it is always the same.
        with FileLock(folder / "lock"):
            made = folder / "made"
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            try:
                package = call(
                    "torch_programs:compile_ahead",
                    what=f"AOTInductor cannot compile {task.model.name}",
                    model=str(task.model),
                    folder=str(made),
                    frozen=self.frozen,
                )
                write_atomically(path, Path(package).read_bytes())
            finally:
                shutil.rmtree(made, ignore_errors=True)
        said = subprocess.run((compiler, "--version"), capture_output=True, text=True, check=False).stdout
        return {
            "torch": metadata.version("torch"),
            "compiler": said.partition("\n")[0],
            "weights": "constants" if self.frozen else "parameters",
            "cpu": processor_name(),
            "code": "native code in the file: load it only if you trust its origin",
        }


@dataclass(frozen=True)
class ExecuTorch:
    """An ExecuTorch program, with XNNPACK for what that takes.

    Attributes:
        quantised: ``static`` for int8 weights and activations, ``dynamic`` for int8 weights of linear layers.
    """

    quantised: str = ""

    def __call__(self, task: CompileTask, path: Path) -> Mapping[str, str]:
        """Write the program."""
        if util.find_spec("executorch") is None:
            raise ExportError(
                f"{task.model.name} cannot be compiled for {task.target}",
                why="the package executorch is not installed",
                fix=how_to_install("executorch"),
            )
        static = self.quantised == "static"
        if static and not task.calibration:
            raise ExportError(
                f"{task.model.name} cannot be quantised",
                why="there are no calibration inputs",
                fix="give --data",
            )
        with temporary_folder("compile") as folder:
            inputs, made = folder / "inputs.npz", folder / "made.pte"
            if static:
                np.savez(inputs, allow_pickle=False, **dict(task.calibration))
            call(
                "torch_programs:lower",
                what=f"ExecuTorch cannot lower {task.model.name}",
                model=str(task.model),
                path=str(made),
                inputs=str(inputs) if static else None,
                dynamic=self.quantised == "dynamic",
            )
            write_atomically(path, made.read_bytes())
        notes = {"executorch": metadata.version("executorch"), "delegate": "XNNPACK", "cpu": "any"}
        if not self.quantised:
            return notes
        notes |= {"torchao": metadata.version("torchao"), "weights": "s8 per channel"}
        if not static:
            return {**notes, "activations": "quantised as they come"}
        rows = min(len(each) for each in task.calibration.values())
        return {**notes, "activations": "s8", "calibration": f"over {rows} inputs"}


def _needs_host(target: Target) -> str:
    if target.device != HOST.name:
        return "AOTInductor compiles for the processor of this machine and the torch that Lathe runs with"
    return "a package for the GPU is compiled on it" if "cuda" in target.settings else ""


def _torch(how: str, make: Any, **more: Any) -> CompileVariant:
    more = {"packages": (), "lossless": True, **more}
    return CompileVariant("torch", "fp32", how, ModelFormat.TORCH, ".pt2", make, **more)


def _executorch(precision: str, how: str, make: ExecuTorch, **more: Any) -> CompileVariant:
    packages = ("executorch", "torch", "torchao")
    more = {"dear": True, **more}
    return CompileVariant("executorch", precision, how, ModelFormat.TORCH, ".pte", make, packages, **more)


VARIANTS = (
    _torch("", _as_it_comes),
    _torch("aotinductor", AotInductor(frozen=False), packages=("torch",), dear=True, unfit=_needs_host),
    _torch("aotinductor-frozen", AotInductor(frozen=True), packages=("torch",), dear=True, unfit=_needs_host),
    # LiteRT computes with XNNPACK too.
    _executorch("fp32", "", ExecuTorch(), lossless=True, like="litert:fp32"),
    _executorch("int8", "static", ExecuTorch("static"), calibrates=True, like="litert:int8-static"),
    _executorch("int8", "dynamic", ExecuTorch("dynamic"), like="litert:int8-dynamic"),
)
