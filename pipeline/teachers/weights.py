"""State dicts read from files that are not trusted, and fitted to a network strictly."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline.errors import TeacherError

_COMPILED = re.compile(r"(^|\.)_orig_mod\.")
_SUFFIXES = (".pt", ".pth", ".tar", ".ckpt", ".bin")
_PREFIXES = ("module.", "model.")
"""Put before every name by data-parallel training and by Lightning."""
_DEEPEST = 3
_SHOWN = 6


def read_weights(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, or from a file of ``torch.save`` with ``weights_only=True``.

    Nothing in the file is executed. A checkpoint may hold the state dict among other things.

    Args:
        path: the file.
        key: which of several state dicts in it; the names of nested entries are joined by dots.

    Raises:
        TeacherError: the file is missing, damaged, of another type, or holds more than weights; it holds no
            state dict, several without ``key`` to choose one, or none of that name.
    """
    if not path.is_file():
        raise TeacherError(
            f"the weights '{path}' do not exist", fix="correct 'weights'; it starts at the recipe's folder"
        )
    try:
        if path.suffix == ".safetensors":
            return _chosen({"": safetensors.torch.load_file(path)}, key, path)
        if path.suffix not in _SUFFIXES:
            raise TeacherError(
                f"weights of type '{path.suffix}' are not understood",
                why=f"'{path}' is neither .safetensors nor {', '.join(_SUFFIXES)}",
                fix="save the state dict with safetensors.torch.save_file",
            )
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except TeacherError:
        raise
    except pickle.UnpicklingError as error:
        raise TeacherError(
            f"'{path}' holds more than weights, and is not loaded because it could run code",
            why=_first_line(error),
            fix="where you trust it, load it yourself and save model.state_dict() with safetensors",
        ) from error
    except Exception as error:  # torch's reader of damaged files raises nearly anything
        raise TeacherError(
            f"the weights '{path}' cannot be read", why=_first_line(error), fix="save them again"
        ) from error
    return _chosen(dict(_state_dicts(loaded)), key, path)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def fit_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights in place: every name and shape must match (BatchNorm's batch counters may be absent).

    The prefixes of data-parallel training, of ``torch.compile`` and of Lightning are dropped where all names
    have them and the network has not.

    Raises:
        TeacherError: lists missing names, unexpected names, and shapes that differ.
    """
    own = network.state_dict()
    weights = _without_prefixes(weights, own)
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
            fix=_remedy(weights, own),
        )
    network.load_state_dict({**own, **weights})


def weights_bytes(network: nn.Module) -> bytes:
    """The state dict as the content of a safetensors file; equal weights give equal bytes."""
    state = {
        name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()
    }
    return safetensors.torch.save(state)


def _state_dicts(loaded: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every state dict in a checkpoint, by its name."""
    if not isinstance(loaded, Mapping) or not loaded or depth > _DEEPEST:
        return
    if all(isinstance(value, Tensor) and isinstance(key, str) for key, value in loaded.items()):
        yield name, dict(loaded)
        return
    for key, value in loaded.items():
        if isinstance(key, str):
            yield from _state_dicts(value, f"{name}.{key}".removeprefix("."), depth + 1)


def _chosen(found: Mapping[str, dict[str, Tensor]], key: str | None, path: Path) -> dict[str, Tensor]:
    names = ", ".join(f"'{name}'" for name in found if name)
    if not found:
        raise TeacherError(
            f"'{path}' is not a state dict",
            why="it holds no mapping of names to tensors",
            fix="save model.state_dict()",
        )
    if key is not None:
        if key not in found:
            raise TeacherError(
                f"'{path}' has no state dict '{key}'",
                why=f"it has {names}" if names else "it is a state dict itself",
                fix="correct 'weights_key'" if names else "remove 'weights_key'",
            )
        return found[key]
    if len(found) > 1:
        raise TeacherError(
            f"'{path}' holds several state dicts, and it is not clear which are the teacher's weights",
            why=f"it has {names}; one with 'ema' in its name is a moving average, often the better one",
            fix=f"choose one with weights_key, e.g. weights_key = {names.split(', ')[-1]}",
        )
    return next(iter(found.values()))


def _without_prefixes(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if not any(_COMPILED.search(name) for name in own):
        # torch.compile puts its name before those of whatever was compiled, the whole or a part.
        weights = {_COMPILED.sub(r"\1", name): tensor for name, tensor in weights.items()}
    while prefix := next((each for each in _PREFIXES if _all_begin(weights, each)), None):
        if _all_begin(own, prefix):
            break
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _remedy(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    prefix = next(iter(weights), "").partition(".")[0] + "."
    if _all_begin(weights, prefix) and not _all_begin(own, prefix):
        return f"remove '{prefix}' from the names and save the state dict again, or use the whole network"
    return "use the network that the weights were saved from: its depth, width and number of classes"


def _all_begin(names: Mapping[str, Tensor], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
