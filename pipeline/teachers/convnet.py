"""A small residual ConvNet for images of 8 to 64 pixels, the teacher that a recipe trains by default."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ConvNet(nn.Module):
    """3x3 stem, three stages of residual blocks, global pooling, linear; stride 2 between stages.

    The blocks are the basic blocks of ResNet (1512.03385, section 3.3) with 1x1 projections where the
    shape changes.

    Args:
        channels: of the input.
        classes: number of logits.
        width: channels of the first stage; doubled in each of the two others.
        depth: blocks per stage.
    """

    def __init__(self, channels: int, classes: int, *, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.stem = _conv_bn(channels, width, 3)
        blocks: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            outputs = width << stage
            for position in range(depth):
                blocks.append(_Block(inputs, outputs, stride=2 if stage and position == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` to logits ``(N, classes)``."""
        features = self.blocks(functional.relu(self.stem(images)))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = _conv_bn(inputs, outputs, 3, stride)
        self.second = _conv_bn(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = nn.Identity() if same else _conv_bn(inputs, outputs, 1, stride)

    def forward(self, images: Tensor) -> Tensor:
        residual = self.second(functional.relu(self.first(images)))
        return functional.relu(residual + self.shortcut(images))


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )
