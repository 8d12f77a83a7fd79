"""The ResNets of CIFAR-10, with the parameter names under which their weights are published."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def resnet_cifar(depth: int = 20, classes: int = 10, width: int = 16) -> nn.Module:
    """ResNet-20, 32, 44, 56 or 110 for 32x32 RGB images (1512.03385, section 4.2), shortcuts of option A.

    Parameters are named ``conv1``, ``bn1``, ``layer{1,2,3}.{i}.{conv1,bn1,conv2,bn2}`` and ``linear``.

    Raises:
        ValueError: the depth is not 6 n + 2 with n at least 1.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"a CIFAR ResNet has a depth of 6 n + 2 (20, 32, 44, 56, 110), not {depth}")
    return _ResNet(blocks, classes, width)


class _ResNet(nn.Module):
    def __init__(self, blocks: int, classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self._stride = stride
        self._added = (outputs - inputs) // 2

    def forward(self, images: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(images)))))
        shortcut = images
        if self._added:
            shortcut = images[:, :, :: self._stride, :: self._stride]
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, self._added, self._added))
        return functional.relu(residual + shortcut)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Block(inputs, outputs, stride)
    return nn.Sequential(first, *(_Block(outputs, outputs, 1) for _ in range(blocks - 1)))
