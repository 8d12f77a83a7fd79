"""Networks as people bring them to ``lathe compile``: factories with random weights at 224 pixels.

MobileNetV2 (1801.04381, table 2) and ResNet-18 (1512.03385, table 1), which have the latency of the published
networks and say nothing of accuracy; and MLPerf Tiny's ResNet-8 (mlcommons/tiny) for weights of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_MOBILENET_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
_RESNET_8 = (
    *((3, 16, 3, 1), (16, 16, 3, 1), (16, 16, 3, 1)),
    *((16, 32, 3, 2), (32, 32, 3, 1), (16, 32, 1, 2)),
    *((32, 64, 3, 2), (64, 64, 3, 1), (32, 64, 1, 2)),
)
"""Channels in and out, size and stride of each convolution."""
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


class ResNet8(nn.Module):
    """MLPerf Tiny's, with the names of its Keras model: RGB images of 32x32 in 0 to 255."""

    def __init__(self) -> None:
        super().__init__()
        normalised = 0
        for number, (inputs, outputs, size, stride) in enumerate(_RESNET_8):
            self.add_module(_name("conv2d", number), nn.Conv2d(inputs, outputs, size, stride))
            if size == 3:
                self.add_module(_name("batch_normalization", normalised), nn.BatchNorm2d(outputs, eps=1e-3))
                normalised += 1
        self.dense = nn.Linear(64, 10)

    def _normalised(self, features: Tensor, convolution: int, normalisation: int) -> Tensor:
        # As TensorFlow pads: where the stride is 2, only behind.
        before = 1 if _RESNET_8[convolution][3] == 1 else 0
        features = functional.pad(features, (before, 1, before, 1))
        features = self.get_submodule(_name("conv2d", convolution))(features)
        return self.get_submodule(_name("batch_normalization", normalisation))(features)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self._normalised(images, 0, 0))
        for convolution, normalisation in ((1, 1), (3, 3), (6, 5)):
            body = torch.relu(self._normalised(features, convolution, normalisation))
            body = self._normalised(body, convolution + 1, normalisation + 1)
            if convolution > 1:
                features = self.get_submodule(_name("conv2d", convolution + 2))(features)
            features = torch.relu(features + body)
        logits: Tensor = self.dense(features.mean(dim=(2, 3)))
        return logits


def _name(kind: str, number: int) -> str:
    return f"{kind}_{number}" if number else kind


def mlperf_tiny_resnet_8() -> nn.Module:
    return ResNet8().eval()
