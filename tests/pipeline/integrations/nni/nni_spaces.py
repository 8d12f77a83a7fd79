"""Small model spaces for the tests of the NNI integration."""

from __future__ import annotations

import nni
import torch
from nni.nas.nn.pytorch import (
    InputChoice,
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    Repeat,
)
from torch import Tensor, nn

IMAGES = torch.zeros(2, 3, 8, 8)


class Residual(nn.Module):
    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.norm(self.convolution(x)))


class Small(ModelSpace):
    """Every kind of choice that can be profiled: width, depth, and layers that shape what follows."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.stem = nn.Sequential(MutableConv2d(3, width, 3, padding=1), MutableBatchNorm2d(width), nn.ReLU())
        self.narrow = MutableConv2d(width, 4, 1)
        self.layers = Repeat(
            lambda index: LayerChoice({"k3": Residual(4, 3), "k5": Residual(4, 5)}, label=f"layer{index}"),
            (1, 3),
            label="depth",
        )
        self.down = LayerChoice([nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(4, 8, 1)], label="down")
        self.mix = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.down(self.layers(self.narrow(self.stem(x)))))
        return self.head(self.dropout(self.pool(x).flatten(1)))


class TwoLayers(ModelSpace):
    """Two layers of three choices: the smallest space that can be searched; the heavier come first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LayerChoice(
            [nn.Conv2d(3, 16, kernel, padding=kernel // 2) for kernel in (7, 3, 1)], label="a"
        )
        self.second = LayerChoice(
            [nn.Conv2d(16, 16, kernel, padding=kernel // 2) for kernel in (7, 3, 1)], label="b"
        )
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(torch.relu(self.first(x))).mean((2, 3)))


class WithInputChoice(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.choice = InputChoice(2, 1, label="which")

    def forward(self, x: Tensor) -> Tensor:
        return self.choice([self.one(x), self.other(x)])
