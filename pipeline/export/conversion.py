"""Modules in, one file's bytes per module out: traced together, converted together in a worker process."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from devices.host import check_interruption, temporary_folder
from pipeline.errors import ExportError, PassingExportError
from pipeline.export import flatbuffer, onnx_graph
from pipeline.export.base import Format
from pipeline.export.process import Worker
from pipeline.export.quantisation import quantise
from pipeline.export.worker import first_line, lacks_memory

Shape = tuple[int, int, int]

# Tracing uses state that belongs to the process.
_TRACING = threading.Lock()


class ChannelLast(nn.Module):
    """A module with ``(N, C, H, W)`` input that takes ``(N, H, W, C)``; a feature map comes out alike."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Tensor) -> Tensor:
        """Run the module between two permutations, which the converter removes."""
        result = _one_tensor(self.module(features.permute(0, 3, 1, 2)))
        return result.permute(0, 2, 3, 1) if result.dim() == 4 else result


class _Joint(nn.Module):
    """Independent modules as one: input ``i`` to output ``i``."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return [_one_tensor(part(each)) for part, each in zip(self.parts, inputs, strict=True)]


def _one_tensor(result: object) -> Tensor:
    if not isinstance(result, Tensor):
        raise TypeError(f"a module must return one tensor, this one returns a {type(result).__name__}")
    return result


def convert(
    modules: Sequence[tuple[nn.Module, Shape]], fmt: Format, output_name: str, worker: Worker | None = None
) -> list[bytes]:
    """Convert modules, each with one input ``(1, C, H, W)`` and one output, in one exporter call.

    Args:
        modules: module and its input's channels, height, width. They are left as they are: what is exported
            is a copy in evaluation mode on the CPU.
        fmt: what to write.
        output_name: name of every file's output; its input is called ``input``.
        worker: of the format's runtime; one for this call alone unless given.

    Returns:
        The content of one file per module, in order. It depends on the module alone, not on its company.

    Raises:
        PassingExportError: time or memory ran out, or the exporter was ended from outside.
        ExportError: tracing, conversion or quantisation failed; the reason is in ``why``.
    """
    check_interruption()
    if worker is None:
        with Worker(fmt.runtime) as its_own:
            return convert(modules, fmt, output_name, its_own)
    with temporary_folder("export") as folder:
        _trace(modules, fmt, folder / "program.pt2")
        worker.do("convert", folder)
        joint = (folder / "joint").read_bytes()
    split = onnx_graph.split if fmt.runtime == "onnxruntime" else flatbuffer.split
    models = split(joint, len(modules), output_name)
    return models if fmt.precision == "fp32" else quantise(models, fmt, output_name, worker)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Torch warns, logs and prints whole graphs while it traces; what matters is in its exception."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def save_program(module: nn.Module, shape: Shape, path: Path) -> None:
    """Save a network as a program of ``torch.export``, ``(1, C, H, W)`` to its output, in evaluation mode.

    Raises:
        ExportError: it cannot be traced.
    """
    _save([module], (torch.zeros(1, *shape),), lambda parts: parts[0], path)


def _trace(modules: Sequence[tuple[nn.Module, Shape]], fmt: Format, path: Path) -> None:
    inputs = tuple(torch.zeros(1, *shape) for _, shape in modules)
    if fmt.layout == "NHWC":
        inputs = tuple(each.permute(0, 2, 3, 1).contiguous() for each in inputs)

    def joined(parts: Sequence[nn.Module]) -> nn.Module:
        return _Joint([ChannelLast(part) for part in parts] if fmt.layout == "NHWC" else parts)

    _save([module for module, _ in modules], inputs, joined, path)


def _save(
    modules: Sequence[nn.Module],
    inputs: tuple[Tensor, ...],
    joined: Callable[[Sequence[nn.Module]], nn.Module],
    path: Path,
) -> None:
    with _TRACING, _quiet(), torch.no_grad():
        try:
            parts = [copy.deepcopy(module).cpu().eval() for module in modules]
            for part in parts:
                _fold_batch_norm(part)
            program = io.BytesIO()
            torch.export.save(torch.export.export(joined(parts).eval(), inputs), program)
        except Exception as error:
            what, why = "torch.export could not trace the module", first_line(error)
            if lacks_memory(error):
                raise PassingExportError("out-of-memory", what, why=why) from error
            raise ExportError(what, why=why) from error
    # Not by torch, whose writer aborts the process when the disk is full.
    path.write_bytes(program.getbuffer())


def _fold_batch_norm(module: nn.Module) -> None:
    """Fold BatchNorm into the convolution that stands before it in an ``nn.Sequential``, in place.

    Both exporters would do the same after lowering; done here it spares them a quarter of their time.
    """
    for child in module.modules():
        if not isinstance(child, nn.Sequential) or type(child).forward is not nn.Sequential.forward:
            continue
        for index in range(len(child) - 1):
            first, second = child[index], child[index + 1]
            if type(first) is nn.Conv2d and type(second) is nn.BatchNorm2d and second.track_running_stats:
                child[index] = fuse_conv_bn_eval(first, second)
                child[index + 1] = nn.Identity()
