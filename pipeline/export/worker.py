"""Calls exporters and quantisers; run as a script in a process of its own, without the rest of Lathe.

``python worker.py RUNTIME PARENT`` does steps for the file format of a runtime, one for each line of standard
input, ``STEP FOLDER``, and answers with a line on standard output, ``done``, ``failed``, ``no-memory`` or
``no-space``:

- ``convert`` reads ``FOLDER/program.pt2`` and writes ``FOLDER/joint``, a model with inputs and outputs in the
  program's order;
- ``quantise`` reads every ``FOLDER/NUMBER.fp32`` and writes ``FOLDER/NUMBER.int8``.

Why a step failed goes to ``FOLDER/error``, one line. The worker ends with its input, and when its parent
does, whose number is PARENT.

Exporters and quantisers write to standard output and error from C, keep memory, change global state and may
abort; here none of that reaches the caller. To import them takes longer than to convert sixty blocks to ONNX.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# Calibration only sets the ranges of activations, on which latency hardly depends.
CALIBRATION_INPUTS, CALIBRATION_SEED = 4, 0
# Of activations and weights, as the documentation of ``quantize_static`` recommends for x86 processors with
# VNNI. Artifacts are quantised alike, so that blocks are timed as they ship.
ONNX_SIGNS = ("u8", "s8")
# Untrained ReLUs may be silent; XNNPACK refuses the scale that follows from no range at all.
SMALLEST_RANGE = 0.01
_FULL = (errno.ENOSPC, errno.EDQUOT)


def convert(runtime: str, folder: Path) -> None:
    """From ``program.pt2`` to ``joint``."""
    import torch

    program = torch.export.load(folder / "program.pt2")
    {"onnxruntime": to_onnx, "litert": to_litert}[runtime](program, folder / "joint")


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


def quantise(runtime: str, folder: Path) -> None:
    """From every ``NUMBER.fp32`` to ``NUMBER.int8``."""
    step = {"onnxruntime": quantise_onnx, "litert": quantise_litert}[runtime]
    for path in folder.glob("*.fp32"):
        step(path, path.with_suffix(".int8"))


def quantise_onnx(source: Path, path: Path) -> None:
    """Static quantisation with QuantizeLinear and DequantizeLinear around the operators.

    The option of ``quantize_static`` for processors without VNNI, 7-bit weights, keeps accuracy, not time.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    entry = onnx.load(source).graph.input[0]
    inputs = calibration_inputs([size.dim_value for size in entry.type.tensor_type.shape.dim])

    types = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
    activations, weights = ONNX_SIGNS

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(({entry.name: each} for each in inputs), None)

    quantize_static(
        source,
        path,
        Reader(),
        activation_type=types[activations],
        weight_type=types[weights],
        per_channel=True,
        extra_options={"MinimumRealRange": SMALLEST_RANGE},
    )


def quantise_litert(source: Path, path: Path) -> None:
    """Full integer quantisation by the quantiser's recipe ``static_wi8_ai8``, inputs and outputs included."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    (entry,) = Interpreter(model_path=str(source)).get_input_details()
    quantiser = quantizer.Quantizer(source.read_bytes(), recipe.static_wi8_ai8())
    samples = [{"input": each} for each in calibration_inputs(entry["shape"])]
    ranges = quantiser.calibrate({"serving_default": samples}, num_threads=1)
    for each in ranges.values():
        each["max"] = each["max"].clip(min=each["min"] + SMALLEST_RANGE)
    path.write_bytes(quantiser.quantize(ranges, enable_progress_report=False).quantized_model)


def calibration_inputs(shape: Any) -> Iterator[Any]:
    """Standard normal values of a fixed seed, float32."""
    import numpy

    generator = numpy.random.default_rng(CALIBRATION_SEED)
    for _ in range(CALIBRATION_INPUTS):
        yield generator.standard_normal(shape, dtype=numpy.float32)


def lacks_memory(error: BaseException) -> bool:
    """Whether it, or one of its causes, says that memory ran out: of Python, or of a library below it."""
    return any(isinstance(each, MemoryError) or tells_of_memory(str(each)) for each in causes(error))


def tells_of_memory(text: str) -> bool:
    """Whether these are words of an allocator: of C++, torch or ONNX Runtime."""
    return any(words in text.lower() for words in ("bad_alloc", "allocate memory", "out of memory"))


def lacks_space(error: BaseException) -> bool:
    """Whether it, or one of its causes, says that a disk is full: of Python, or of a library below it."""
    return any(getattr(each, "errno", None) in _FULL or tells_of_space(str(each)) for each in causes(error))


def tells_of_space(text: str) -> bool:
    """Whether these are words of the system for a full disk."""
    return any(os.strerror(number).lower() in text.lower() for number in _FULL)


def causes(error: BaseException) -> Iterator[BaseException]:
    """It, its cause, the cause of that, and so on."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def first_line(error: BaseException) -> str:
    """Kind and first line of the innermost cause: exporters wrap the reason in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def end_with(parent: int) -> None:
    """Have Linux end this process when its parent ends; elsewhere who starts it sees to that."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        # The parent may have ended before.
        if os.getppid() != parent:
            sys.exit(1)


def serve(runtime: str) -> None:
    """Do the steps that are asked for, until the input ends."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # While a program is traced, collections take a tenth of the time and find next to nothing.
    gc.disable()
    for line in sys.stdin:
        step, _, folder = line.rstrip("\n").partition(" ")
        try:
            {"convert": convert, "quantise": quantise}[step](runtime, Path(folder))
            answer = "done"
        except Exception as error:
            answer = "no-space" if lacks_space(error) else "no-memory" if lacks_memory(error) else "failed"
            if answer != "no-space":
                (Path(folder) / "error").write_text(first_line(error), encoding="utf-8")
        answers.write(f"{answer}\n")
        answers.flush()
        gc.collect()
        if not gc.get_freeze_count():
            # What the libraries keep need not be looked at again.
            gc.freeze()


if __name__ == "__main__":
    end_with(int(sys.argv[2]))
    serve(sys.argv[1])
