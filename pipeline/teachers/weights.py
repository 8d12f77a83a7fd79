"""State dicts read from files that are not trusted, and fitted to a network strictly."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pipeline.errors import TeacherError

_COMPILED = re.compile(r"(^|\.)_orig_mod\.")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SHOWN = 6


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read ``.safetensors``, or ``.pt``/``.pth`` with ``weights_only=True``; nothing in the file is executed.

    A state dict inside a checkpoint (``state_dict``, ``model_state_dict``, ``model``) is taken out, and the
    prefixes that data-parallel training and ``torch.compile`` put before names are dropped.

    Raises:
        TeacherError: the file is missing, damaged, of another type, or holds more than weights.
    """
    if not path.is_file():
        raise TeacherError(
            f"the weights '{path}' do not exist", fix="correct 'weights'; it starts at the recipe's folder"
        )
    try:
        if path.suffix == ".safetensors":
            return _unwrapped(safetensors.torch.load_file(path))
        if path.suffix not in (".pt", ".pth"):
            raise TeacherError(
                f"weights of type '{path.suffix}' are not understood",
                why=f"'{path}' is neither .safetensors nor .pt or .pth",
                fix="save the state dict with safetensors.torch.save_file",
            )
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TeacherError(
            f"'{path}' holds more than weights, and is not loaded because it could run code",
            why=str(error).splitlines()[0],
            fix="where you trust it, load it yourself and save model.state_dict() with safetensors",
        ) from error
    except (OSError, EOFError, RuntimeError, SafetensorError) as error:
        raise TeacherError(
            f"the weights '{path}' cannot be read", why=str(error).splitlines()[0], fix="save them again"
        ) from error
    return _state_dict(loaded, path)


def fit_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights in place: every name and shape must match (BatchNorm's batch counters may be absent).

    Raises:
        TeacherError: lists missing names, unexpected names, and shapes that differ.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in weights and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in weights if name not in own]
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(problems.values()):
        raise TeacherError(
            f"{source} does not fit the network",
            why="; ".join(f"{kind}: {_listed(names)}" for kind, names in problems.items() if names),
            fix="correct 'arguments' so that the network is the one the weights were saved from",
        )
    network.load_state_dict({**own, **weights})


def weights_bytes(network: nn.Module) -> bytes:
    """The state dict as the content of a safetensors file; equal weights give equal bytes."""
    state = {
        name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()
    }
    return safetensors.torch.save(state)


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise TeacherError(
            f"'{path}' is not a state dict",
            why=f"it holds a {type(loaded).__name__} with other things than tensors",
            fix="save model.state_dict()",
        )
    return _unwrapped(loaded)


def _unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the names that the network itself gives them.

    Data-parallel training puts ``module.`` before all of them, ``torch.compile`` puts ``_orig_mod.`` before
    those of whatever was compiled.
    """
    named = {_COMPILED.sub(r"\1", name): value for name, value in weights.items()}
    if named and all(name.startswith("module.") for name in named):
        named = {_COMPILED.sub(r"\1", name.removeprefix("module.")): value for name, value in named.items()}
    return named


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
