"""Networks as people bring them to ``lathe compile``: factories with random weights at 224 pixels.

MobileNetV2 (1801.04381, table 2) and ResNet-18 (1512.03385, table 1), which have the latency of the published
networks and say nothing of accuracy; and MLPerf Tiny's ResNet-8 (mlcommons/tiny) for weights of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MOBILENET_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
_RESNET_18 = ((64, 1), (128, 2), (256, 2), (512, 2))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class Residual(nn.Module):
    """A body with a shortcut, if there is one, and an activation behind."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None, *, activate: bool) -> None:
        super().__init__()
        self.body, self.shortcut, self.activate = body, shortcut, activate

    def forward(self, features: Tensor) -> Tensor:
        result = self.body(features)
        if self.shortcut is not None:
            result = result + self.shortcut(features)
        return torch.relu(result) if self.activate else result


def mobilenet_v2(classes: int = 1000) -> nn.Module:
    torch.manual_seed(0)
    layers = [*_convolution(3, 32, 3, 2), nn.ReLU6()]
    channels = 32
    for expansion, outputs, repeats, first_stride in (*_MOBILENET_V2, (6, 320, 1, 1)):
        for number in range(repeats):
            stride, hidden = first_stride if number == 0 else 1, expansion * channels
            body = [*_convolution(channels, hidden, 1), nn.ReLU6()] if expansion > 1 else []
            body += [*_convolution(hidden, hidden, 3, stride, hidden), nn.ReLU6()]
            body += _convolution(hidden, outputs, 1)
            same = stride == 1 and channels == outputs
            layers.append(Residual(nn.Sequential(*body), nn.Identity() if same else None, activate=False))
            channels = outputs
    layers += [*_convolution(channels, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, classes)).eval()


def resnet_18(classes: int = 1000) -> nn.Module:
    torch.manual_seed(0)
    layers = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for outputs, first_stride in _RESNET_18:
        for stride in (first_stride, 1):
            body = [
                *_convolution(channels, outputs, 3, stride),
                nn.ReLU(),
                *_convolution(outputs, outputs, 3),
            ]
            same = stride == 1 and channels == outputs
            shortcut = nn.Identity() if same else nn.Sequential(*_convolution(channels, outputs, 1, stride))
            layers.append(Residual(nn.Sequential(*body), shortcut, activate=True))
            channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)).eval()
