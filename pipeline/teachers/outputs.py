"""Where the logits lie in what a network gives, as it was seen on a few images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

_LEAST_PROBABILITY = 1e-12
_LEAST_SIGMOID = 1e-6

Place = str | int | None
"""A name in a mapping or an object, a position in a sequence, or ``None``: the output itself."""


def place_of_logits(output: Any, classes: int) -> Place:
    """The entry that is called ``logits``, else the first with one value per class, else the first of all.

    Args:
        output: what the network gives for several images.
        classes: how many values per image are expected.

    Raises:
        ValueError: there is no tensor in it.
    """
    if isinstance(output, Tensor):
        return None
    found = dict(_tensors(output))
    if not found:
        raise ValueError(f"the network gives a {type(output).__name__} in place of logits")
    if "logits" in found:
        return "logits"
    fitting = (place for place, tensor in found.items() if tensor.flatten(1).shape[1:] == (classes,))
    return next(fitting, next(iter(found)))


class OutputsError(ValueError):
    """What a network gives leaves open which tensor is meant."""


def giving_one_tensor(network: nn.Module, inputs: Tensor) -> nn.Module:
    """The network itself if it gives a tensor, else one around it that gives the ``logits`` or only tensor.

    Args:
        network: in evaluation mode.
        inputs: that it takes.

    Raises:
        OutputsError: it gives no tensor, or several of which none is called ``logits``.
        Exception: whatever the network raises.
    """
    output = network(inputs)
    if isinstance(output, Tensor):
        return network
    found = dict(_tensors(output))
    if "logits" not in found and len(found) != 1:
        listed = ", ".join(f"{place} of {tuple(tensor.shape[1:])}" for place, tensor in found.items())
        what = f"several tensors and none called 'logits': {listed}" if found else "no tensor"
        raise OutputsError(f"it gives a {type(output).__name__} with {what}")
    return _OneOutput(network, "logits" if "logits" in found else next(iter(found))).eval()


class _OneOutput(nn.Module):
    def __init__(self, network: nn.Module, place: Place) -> None:
        super().__init__()
        self.network, self._place = network, place

    def forward(self, *inputs: Tensor) -> Tensor:
        return tensor_at(self.network(*inputs), self._place)


@torch.fx.wrap
def tensor_at(output: Any, place: Place) -> Tensor:
    """The tensor at a place of what a network gives.

    Raises:
        ValueError: there is no tensor there.
    """
    if isinstance(place, str) and not isinstance(output, Mapping):
        output = getattr(output, place, None)
    elif place is not None:
        output = output[place]
    if not isinstance(output, Tensor):
        raise ValueError(f"the network gives a {type(output).__name__} in place of a tensor")
    return output


def described(output: Any, place: Place) -> str:
    """The place in words."""
    name = f"'{place}'" if isinstance(place, str) else f"number {place}, counted from 0,"
    return f"{name} of the {len(dict(_tensors(output)))} outputs"


def _tensors(output: Any) -> Iterator[tuple[str | int, Tensor]]:
    """Tensors of at least one value per image, by their place."""
    if isinstance(output, Mapping):
        entries = list(output.items())
    elif isinstance(output, tuple | list):
        entries = list(enumerate(output))
    elif is_dataclass(output):
        entries = [(each.name, getattr(output, each.name)) for each in fields(output)]
    else:
        entries = [("logits", getattr(output, "logits", None))]
    yield from ((place, each) for place, each in entries if isinstance(each, Tensor) and each.ndim > 1)


def are_probabilities(outputs: Tensor, several_labels: bool) -> bool:
    """Whether every output lies in 0..1 and, of a single label, those of an image sum to 1.

    Args:
        outputs: ``(N, classes)``.
        several_labels: of one image.
    """
    sums = outputs.sum(dim=1)
    within = bool(((outputs >= 0) & (outputs <= 1)).all())
    return within and (several_labels or torch.allclose(sums, torch.ones_like(sums), atol=1e-3))


def logits_of_probabilities(probabilities: Tensor, several_labels: bool) -> Tensor:
    """Logits ``(N, classes)`` whose softmax or, of several labels, sigmoid they are."""
    if several_labels:
        return probabilities.logit(_LEAST_SIGMOID)
    return probabilities.clamp_min(_LEAST_PROBABILITY).log()


def giving_logits(network: nn.Module, images: Tensor, several_labels: bool) -> nn.Module:
    """The network itself, or one around it that turns the probabilities that it gives into logits.

    Args:
        network: ``(N, C, H, W)`` to ``(N, classes)``; left in evaluation mode.
        images: by which it is seen what it gives.
        several_labels: of one image.
    """
    with torch.no_grad():
        outputs = network.eval()(images)
    return _Logits(network, several_labels) if are_probabilities(outputs, several_labels) else network


class _Logits(nn.Module):
    def __init__(self, network: nn.Module, several_labels: bool) -> None:
        super().__init__()
        self.network, self._several_labels = network, several_labels

    def forward(self, images: Tensor) -> Tensor:
        return logits_of_probabilities(self.network(images), self._several_labels)
