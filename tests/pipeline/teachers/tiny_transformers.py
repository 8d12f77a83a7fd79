"""Folders with teachers of transformers, built from configuration: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def vit(classes: Sequence[str], size: int = 8, channels: int = 3) -> Any:
    """A vision transformer with random weights; quiet about what transformers wants to say."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    settings = transformers.ViTConfig(
        image_size=size,
        patch_size=4,
        num_channels=channels,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate(classes)),
        label2id={name: place for place, name in enumerate(classes)},
    )
    return transformers.ViTForImageClassification(settings).eval()


def resnet(classes: int) -> Any:
    """A residual network whose classes have no names."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    settings = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=classes
    )
    return transformers.ResNetForImageClassification(settings).eval()


def saved(network: Any, folder: Path, size: int | None = 8, **processor: Any) -> Path:
    """The folder with network and image processor, or without processor where no size is given."""
    from transformers import ViTImageProcessor

    network.save_pretrained(folder)
    if size is not None:
        settings = {"size": {"height": size, "width": size}, **processor}
        ViTImageProcessor(**settings).save_pretrained(folder)
    return folder
