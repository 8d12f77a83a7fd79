"""A model that the real tool of LiteRT compiled by the real plug-in of Intel, and what runs it.

The plug-in hands graphs to OpenVINO, which compiles them for an NPU, or for the CPU where it is asked to. So
the whole way is real, but for the processor at its end.
"""

from __future__ import annotations

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

CHIP = "LNL"
"""Lunar Lake."""
ON_CPU = {"intel_openvino_graph_backends": "cpu"}
"""What the plug-in is told, so that OpenVINO compiles for the CPU."""


def folder_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def openvino_as_litert_wants_it(folder: Path) -> Path:
    """The installed OpenVINO under the version that LiteRT's plug-in names: for LD_LIBRARY_PATH."""
    (plugin,) = (folder_of("ai_edge_litert") / "vendors/intel_openvino/dispatch").iterdir()
    named = re.search(rb"libopenvino\.so\.(\d+)", plugin.read_bytes())
    assert named is not None
    folder.mkdir()
    for library in (folder_of("openvino") / "libs").iterdir():
        (folder / library.name).symlink_to(library)
        wanted = folder / re.sub(r"(libopenvino\w*\.so)\.\d+$", rf"\1.{named[1].decode()}", library.name)
        if not wanted.exists():
            wanted.symlink_to(library)
    return folder


def compile_for_npu(model: Path, path: Path, libraries: Path) -> Path:
    """Compile a ``.tflite`` file as LiteRT's package does it."""
    litert = folder_of("ai_edge_litert")
    command = [
        litert / "tools/apply_plugin_main",
        "--cmd=apply",
        f"--model={model}",
        f"--o={path}",
        "--soc_manufacturer=IntelOpenVINO",
        f"--soc_model={CHIP}",
        f"--libs={litert}/vendors/intel_openvino/compiler",
        *(f"--{name}={value}" for name, value in ON_CPU.items()),
    ]
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{libraries}:{litert}"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return path
