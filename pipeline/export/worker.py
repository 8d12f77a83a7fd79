"""Converts one traced program; run as a script in a process of its own, with torch and an exporter only.

``python worker.py FORMAT FOLDER`` reads ``FOLDER/program.pt2`` and writes ``FOLDER/joint``, a model with
inputs and outputs in the program's order. A failure goes to ``FOLDER/error``, one line, with exit status 1.

Exporters write to standard error from C, keep memory, change global state and may abort; here none of that
reaches the caller.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def to_onnx(program: ExportedProgram, path: Path) -> None:
    """Write an ONNX model with inputs ``input_0``, ... and outputs ``output_0``, ..."""
    import torch

    count = len(program.example_inputs[0])
    exported = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=[f"input_{index}" for index in range(count)],
        output_names=[f"output_{index}" for index in range(count)],
    )
    if exported is None:
        raise RuntimeError("torch.onnx.export gave no model")
    exported.save(path, external_data=False)


def to_litert(program: ExportedProgram, path: Path) -> None:
    """Write a LiteRT model with inputs ``args_0``, ... and outputs ``output_0``, ..."""
    import litert_torch

    litert_torch.convert(program.module(), program.example_inputs[0]).export(str(path))


def first_line(error: BaseException) -> str:
    """Kind and first line of the innermost cause: exporters wrap the reason in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def main(fmt: str, folder: Path) -> int:
    """Convert ``folder/program.pt2``; 0 on success, 1 with the reason in ``folder/error``."""
    import torch

    warnings.simplefilter("ignore")
    try:
        program = torch.export.load(folder / "program.pt2")
        {"onnx": to_onnx, "litert": to_litert}[fmt](program, folder / "joint")
    except Exception as error:
        (folder / "error").write_text(first_line(error), encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
