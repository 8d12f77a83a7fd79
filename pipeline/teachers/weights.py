"""State dicts read from files that are not trusted; ``pipeline.teachers.fitting`` puts them into networks."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from devices.untrusted import open_zip
from pipeline.errors import TeacherError

_SUFFIXES = (".pt", ".pth", ".tar", ".ckpt", ".bin")
_BLOCKED = re.compile(r"GLOBAL (\S+)")
_DEEPEST = 3
_SHOWN = 4
_SAVE_ALONE = "where you trust it, load it yourself and save model.state_dict() with safetensors"


def read_weights(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, or from a file of ``torch.save`` with ``weights_only=True``.

    Nothing in the file is executed. A checkpoint may hold the state dict among other things; objects of any
    class, such as hyper-parameters, are replaced by empty stand-ins.

    Args:
        path: the file.
        key: which of several state dicts in it, the names of nested entries joined by dots; or a prefix
            of names in it, such as ``ema_model``, which is dropped.

    Raises:
        TeacherError: the file is missing, damaged, of another type, or holds more than weights; it holds no
            state dict, several without ``key`` to choose one, or none of that name.
    """
    if not path.is_file():
        raise TeacherError(
            f"the weights '{path}' do not exist", fix="correct 'weights'; it starts at the recipe's folder"
        )
    if path.suffix != ".safetensors" and path.suffix not in _SUFFIXES:
        raise TeacherError(
            f"weights of type '{path.suffix}' are not understood",
            why=f"'{path}' is neither .safetensors nor {', '.join(_SUFFIXES)}",
            fix="save the state dict with safetensors.torch.save_file; for a whole exported network, a .pt2 "
            "file, use kind = 'pt2'",
        )
    try:
        if path.suffix == ".safetensors":
            return _chosen({"": safetensors.torch.load_file(path)}, key, path)
        loaded, stand_ins = _load(path)
    except TeacherError:
        raise
    except pickle.UnpicklingError as error:
        blocked = _BLOCKED.search(str(error))
        raise TeacherError(
            f"'{path}' holds more than weights, and is not loaded because it could run code",
            why=f"it asks for {blocked[1]}" if blocked else _first_line(error),
            fix=_SAVE_ALONE,
        ) from error
    except Exception as error:  # torch's reader of damaged files raises nearly anything
        if "TorchScript" in str(error):
            raise TeacherError(
                f"'{path}' holds a program of TorchScript, and is not loaded because it could run code",
                fix="where you trust it, save torch.jit.load(...).state_dict() with safetensors",
            ) from error
        raise TeacherError(
            f"the weights '{path}' cannot be read", why=_first_line(error), fix="save them again"
        ) from error
    found = dict(_state_dicts(loaded))
    if not found and stand_ins:
        raise TeacherError(
            f"'{path}' holds whole objects in place of weights, and they could run code",
            why=f"it has no state dict, but objects of {_listed(stand_ins)}, which are never made",
            fix=_SAVE_ALONE,
        )
    return _chosen(found, key, path)


def weights_bytes(network: nn.Module) -> bytes:
    """The state dict as the content of a safetensors file; equal weights give equal bytes."""
    state = {
        name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()
    }
    return safetensors.torch.save(state)


class _Nothing:
    """Stands for a number or type of numpy in a checkpoint."""

    def __new__(cls, *given: Any) -> _Nothing:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _EmptyTable:
    """Stands for an object of any other class: the reader fills it as a dictionary, or sets attributes."""

    def __new__(cls, *given: Any) -> OrderedDict[str, Any]:  # type: ignore[misc]
        return OrderedDict()


def _load(path: Path) -> tuple[Any, list[str]]:
    """What a file of ``torch.save`` holds, and the names of the classes that stand-ins replaced in it.

    What a checkpoint says beside its weights is of no interest, so no class of it is ever imported.
    """
    if zipfile.is_zipfile(path):
        open_zip(path).close()
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except ValueError:  # The format before torch 1.6 has no list of them, and is read without stand-ins.
        names = []
    stand_ins = [(_Nothing if name.startswith("numpy.") else _EmptyTable, name) for name in names]
    with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
        return torch.load(path, map_location="cpu", weights_only=True), names


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


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
        chosen = found.get(key) or next(iter(_below(found, key)), None)
        if chosen is None:
            raise TeacherError(
                f"'{path}' has no state dict '{key}'",
                why=f"it has {names}, and no names that begin with '{key}.'"
                if names
                else f"it is a state dict itself, and no name in it begins with '{key}.'",
                fix=f"{'correct' if names else 'remove'} weights_key, or --weights-key of lathe compile",
            )
        return chosen
    if len(found) > 1:
        raise TeacherError(
            f"'{path}' holds several state dicts, and it is not clear which are the teacher's weights",
            why=f"it has {names}; one with 'ema' in its name is a moving average, often the better one",
            fix=f"choose one, e.g. weights_key = {names.split(', ')[-1]}; in lathe compile by --weights-key",
        )
    return next(iter(found.values()))


def _below(found: Mapping[str, dict[str, Tensor]], key: str) -> Iterator[dict[str, Tensor]]:
    """What lies below the prefix ``key`` of names, in each state dict that has it."""
    for name, weights in found.items():
        prefix = key.removeprefix(f"{name}.") + "."
        chosen = {
            each.removeprefix(prefix): tensor for each, tensor in weights.items() if each.startswith(prefix)
        }
        if chosen:
            yield chosen


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
