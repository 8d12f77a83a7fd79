"""Weights, Adam's state and losses in one safetensors file, from which training goes on exactly."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pipeline.errors import WorkFolderError
from pipeline.work.disk import write_atomically

_MODEL, _ADAM = "model.", "adam."


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, losses: list[float]
) -> None:
    """Write the state after ``len(losses)`` epochs; a kill leaves the old file or the new one."""
    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_ADAM}{index}.{name}": tensor for name, tensor in state.items()}
    kept = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(kept, {"losses": json.dumps(losses)}))


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
    """Restore model and optimiser in place; returns the losses of the epochs so far.

    Raises:
        WorkFolderError: the file is damaged, or of another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            losses: list[float] = json.loads(file.metadata()["losses"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model.load_state_dict(_part(tensors, _MODEL))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise WorkFolderError(
            f"the checkpoint {path} cannot be used",
            why=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            fix="delete it; the block is then trained from the start",
        ) from error
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, _ADAM).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return losses


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
