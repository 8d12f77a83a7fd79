"""A teacher: one frozen network, or an ensemble, that gives logits for the data's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from devices.digests import value_digest
from pipeline.data.base import Preprocessing
from pipeline.data.images import height_and_width
from pipeline.distill.ensemble import Ensemble
from pipeline.distill.settings import EpochRecord
from pipeline.tasks import Regression
from pipeline.teachers.classes import Outputs
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.last_layer import standardise_last_layer
from pipeline.teachers.outputs import Place, logits_of_probabilities, tensor_at


@dataclass(frozen=True, eq=False)
class Member:
    """One trained network of a teacher; ``digest`` is over its configuration and its weights.

    ``history`` is of its training here, empty where its weights were taken as they are.
    """

    name: str
    network: AdaptedNetwork
    digest: str
    history: tuple[EpochRecord, ...] = ()


class Teacher:
    """One network, or several as an ensemble.

    Attributes:
        members: its networks.
        names: one per member.
        digest: over the configuration and weights of all members, in order.
        module: preprocessed ``(N, C, H, W)`` to logits ``(N, classes)``; on the CPU until it is moved. A
            single network gives its own logits. An ensemble gives the logarithm of the mean of its members'
            softmax probabilities (1503.02531, section 3), so that their softmax is that mean.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self.names = tuple(member.name for member in members)
        self.digest = value_digest([member.digest for member in members])
        networks = [member.network for member in members]
        self.module: nn.Module = networks[0] if len(networks) == 1 else Ensemble(networks)
        self.module.eval().requires_grad_(False)

    def member_logits(self, images: Tensor) -> Tensor:
        """Logits ``(members, N, classes)`` of preprocessed images ``(N, C, H, W)``, on the images' device."""
        self.module.to(images.device).eval()
        with torch.no_grad():
            return torch.stack([member.network(images) for member in self.members])


class AdaptedNetwork(nn.Module):
    """A network that takes the data's images through its own normalisation, channels and size.

    Args:
        network: the network as it was trained.
        config: says what to adapt.
        preprocessing: how the data's images were normalised.

    Attributes:
        config: the same.
        place: of the logits in what the network gives.
        place_in_training: the same in training mode, where networks may give more, as auxiliary heads.
        gives_probabilities: whether the network ends in a softmax, whose logarithm then stands for logits; or
            with ``several_labels`` in sigmoids, whose logits are taken.
        several_labels: whether the labels of an image do not exclude each other.
        outputs: for each class of the data the outputs that stand for it; ``None``: output k for class k.
    """

    _scale: Tensor
    _shift: Tensor
    _chosen: Tensor
    _absent: Tensor
    _centre: Tensor
    _spread: Tensor

    def __init__(self, network: nn.Module, config: TeacherConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.place: Place = None
        self.place_in_training: Place = None
        self.gives_probabilities = False
        self.several_labels = False
        self._unit = False
        self.outputs: Outputs | None = None
        self._size = config.resize
        self._channels = config.channels
        self._reversed = config.channel_order == "bgr"
        self._renormalise = config.mean is not None and config.std is not None
        if config.mean is not None and config.std is not None:
            data_mean, data_std = _row(preprocessing.mean), _row(preprocessing.std)
            if self._reversed:
                data_mean, data_std = data_mean.flip(1), data_std.flip(1)
            mean, std = _row(config.mean), _row(config.std)
            # Not persistent: the state of the network stays that of its own parameters.
            self.register_buffer("_scale", data_std / std, persistent=False)
            self.register_buffer("_shift", (data_mean - mean) / std, persistent=False)

    def take(self, outputs: Outputs | None) -> None:
        """Let these outputs stand for the data's classes; of several for one, probabilities are added."""
        self.outputs = outputs
        if outputs is None:
            return
        most = max(map(len, outputs))
        rows = [[*each, *[each[0]] * (most - len(each))] for each in outputs]
        absent = [[0.0] * len(each) + [-torch.inf] * (most - len(each)) for each in outputs]
        self.register_buffer("_chosen", torch.tensor(rows), persistent=False)
        self.register_buffer("_absent", torch.tensor(absent), persistent=False)

    def in_units_of(self, task: Regression) -> None:
        """Let outputs be in the unit of the task's labels; the network gives them in that of the data."""
        self.register_buffer("_centre", torch.tensor(task.mean), persistent=False)
        self.register_buffer("_spread", torch.tensor(task.std), persistent=False)
        self._unit = True

    def put_unit_into_last_layer(self, images: Tensor) -> None:
        """Let the network itself give the unit of the labels, if its last layer can.

        A training of the network, or of what is left of it, then takes the same steps in every unit.

        Args:
            images: ``(N, C, H, W)`` as the data give them.
        """
        if not self._unit:
            return
        prepared = self.prepared(images)
        with torch.no_grad():
            count = logits_in(self.network(prepared), self.place).shape[1]
        mean, std = torch.zeros(count), torch.ones(count)
        places = slice(None) if self.outputs is None else self._chosen[:, 0]
        mean[places], std[places] = self._centre, self._spread
        self._unit = not standardise_last_layer(self.network, prepared, self.place, mean, std)

    def prepared(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` as the data give them, to what the network was trained on."""
        if self._channels is not None:  # Of coloured images this repeats nothing.
            images = images.expand(-1, self._channels, -1, -1)
        if self._reversed:
            images = images.flip(1)
        if self._renormalise:
            images = images * self._scale + self._shift
        if self._size is not None:
            images = functional.interpolate(
                images, height_and_width(self._size), mode="bilinear", align_corners=False, antialias=True
            )
        return images

    def forward(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` as the data give them, to logits."""
        place = self.place_in_training if self.training else self.place
        logits = logits_in(self.network(self.prepared(images)), place)
        if self.gives_probabilities:
            logits = logits_of_probabilities(logits, self.several_labels)
        if self.outputs is not None:
            logits = self._of_classes(logits)
        return (logits - self._centre) / self._spread if self._unit else logits

    def _of_classes(self, logits: Tensor) -> Tensor:
        if self._chosen.shape[1] == 1:
            return logits.index_select(1, self._chosen[:, 0])
        return (logits[:, self._chosen] + self._absent).logsumexp(2)


@torch.fx.wrap
def logits_in(output: Any, place: Place) -> Tensor:
    """The logits ``(N, classes)`` at a place of what a network gives.

    Raises:
        ValueError: there is no tensor there.
    """
    found: Tensor = tensor_at(output, place)
    pooled = found.flatten(1) if found.ndim == 4 and found.shape[2:] == (1, 1) else found
    return pooled.float()


def _row(values: tuple[float, ...]) -> Tensor:
    """Per-channel values, or one for all, as a tensor that broadcasts over images."""
    return torch.tensor(values).view(1, -1, 1, 1)
