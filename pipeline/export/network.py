"""Whole networks to one file each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from pipeline.errors import ExportError
from pipeline.export.base import OUTPUT_NAME, Format, exporter_versions
from pipeline.export.conversion import Shape, convert
from pipeline.work.disk import write_atomically


def export_network(model: nn.Module, input_shape: Shape, fmt: Format, path: Path) -> Path:
    """Export a network ``(N, C, H, W)`` to logits ``(N, classes)``, batch 1, in evaluation mode.

    The file's input is called ``input``, ``(1, C, H, W)`` in ONNX and ``(1, H, W, C)`` in LiteRT, its output
    ``logits``. The model is left as it is, in its mode and on its device.

    Args:
        model: float32.
        input_shape: channels, height, width.
        fmt: what to write.
        path: the file, written whole or not at all.

    Returns:
        ``path``.

    Raises:
        ExportError: the exporter is not installed, or cannot convert the network (an unsupported operator).
    """
    export_networks({path: model}, input_shape, fmt)
    return path


def export_networks(models: Mapping[Path, nn.Module], input_shape: Shape, fmt: Format) -> None:
    """Export several networks of one input shape in one exporter call, each as ``export_network`` does.

    Raises:
        ExportError: the exporter is not installed, or cannot convert one of the networks.
    """
    exporter_versions(fmt)
    try:
        contents = convert([(model, input_shape) for model in models.values()], fmt, OUTPUT_NAME)
    except ExportError as error:
        names = ", ".join(sorted({type(model).__name__ for model in models.values()}))
        raise ExportError(
            f"{names} cannot be exported to {fmt}",
            why=f"{error.what}: {error.why}",
            fix=error.fix or "leave the operator out of the network, or drop the targets of this format",
        ) from error
    for path, content in zip(models, contents, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
