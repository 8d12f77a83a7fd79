"""Tensors in JSON: safetensors, as base64."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from safetensors.torch import load, save
from torch import Tensor


def packed(tensors: Mapping[str, Tensor]) -> str:
    """Tensors by name, as text."""
    return base64.b64encode(save({name: tensor.contiguous() for name, tensor in tensors.items()})).decode()


def unpacked(text: str) -> dict[str, Tensor]:
    """What ``packed`` made text of.

    Raises:
        ValueError: it is not base64.
        SafetensorError: it is not safetensors.
    """
    return load(base64.b64decode(text, validate=True))
