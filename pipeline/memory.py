"""How much memory work needs at least, and how much this machine has; nothing is allocated to find out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

_FLOAT_BYTES = 4
_COPIES = 3
"""Of the weights: themselves, their gradients, and the momentum of the optimizer."""

_CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_bytes() -> int:
    """Memory of this machine, or of the container that this process is in if that is less."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _CGROUPS:
        try:
            found = min(found, int(path.read_text()))
        except (OSError, ValueError):
            continue
    return found


def training_bytes(
    build: Callable[[], nn.Module], input_shape: tuple[int, int, int], batch_size: int
) -> int | None:
    """Memory that a step of training takes at least, in bytes, as an estimate.

    These are the weights, their gradients and the optimizer's copy, and the outputs of the layers that have
    weights for one batch. What else a training keeps comes on top.

    Args:
        build: makes the network; called where tensors have shapes and no content.
        input_shape: channels, height, width of an image.
        batch_size: images of a step.

    Returns:
        ``None`` if the network cannot be built without its weights.
    """
    import torch

    kept = 0

    def count(module: nn.Module, given: Any, output: Any) -> None:
        nonlocal kept
        if isinstance(output, torch.Tensor):
            kept += output.numel() * _FLOAT_BYTES

    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), torch.no_grad():
            network = build().train()
            for module in network.modules():
                if next(module.parameters(recurse=False), None) is not None:
                    module.register_forward_hook(count)
            network(torch.empty(batch_size, *input_shape))
    except Exception:  # networks of others do what they like
        return None
    weights = sum(each.numel() * each.element_size() for each in network.parameters())
    return _COPIES * weights + kept


def require_room(needed_bytes: int, what: str) -> None:
    """Refuse work for which the machine has not the memory.

    Raises:
        RecipeError: saying how much is needed at least, and how much there is.
    """
    if needed_bytes > machine_bytes():
        raise RecipeError(
            f"{what} needs at least {gigabytes(needed_bytes)} of memory, as estimated",
            why=f"this machine has {gigabytes(machine_bytes())}",
            fix="lower batch_size, widths or image_size",
        )


def gigabytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
