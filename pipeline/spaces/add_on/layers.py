"""Torch modules of the add-on space: residual blocks, what is added to them, and the classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pipeline.spaces.base import Block
from pipeline.spaces.layers import ConvBNReLU, initialise


class ResidualBlock(nn.Module):
    """The basic block of ResNet (1512.03385), with a 1x1 projection where the shape changes.

    ``(N, in, H, W)`` to ``(N, out, ceil(H/stride), ceil(W/stride))``, never below zero.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.first = ConvBNReLU(in_channels, out_channels, 3, stride=stride)
        self.second = ConvBNReLU(out_channels, out_channels, 3, activate=False)
        keeps_shape = stride == 1 and in_channels == out_channels
        self.shortcut: nn.Module = (
            nn.Identity()
            if keeps_shape
            else ConvBNReLU(in_channels, out_channels, 1, stride=stride, activate=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Two convolutions beside the shortcut."""
        return functional.relu(self.second(self.first(features)) + self.shortcut(features))


class AddOn(nn.Module):
    """An operation that keeps shape and channels, in the place of its input or added to it.

    Convolutions end in BatchNorm; a ReLU follows where they stand in series, or behind the sum. Pools of what
    is not below zero need none.

    Args:
        channels: of input and output.
        operation: one of ``AddOnOperation``.
        join: ``series`` or ``added``.
    """

    def __init__(self, channels: int, *, operation: str, join: str) -> None:
        super().__init__()
        self.operation = operation_of(operation, channels)
        self._activates = not operation.endswith("pool")
        self._added = join == "added"

    def forward(self, features: Tensor) -> Tensor:
        """The operation of the features, or their sum with it."""
        return self.added_to(features, features) if self._added else self.in_series(features)

    def in_series(self, features: Tensor) -> Tensor:
        """The operation of ``features``."""
        return self._activated(self.operation(features))

    def added_to(self, onto: Tensor, features: Tensor) -> Tensor:
        """The operation of ``features``, added to ``onto``."""
        return self._activated(onto + self.operation(features))

    def _activated(self, features: Tensor) -> Tensor:
        return functional.relu(features) if self._activates else features


class AddOnLayer(nn.Module):
    """A residual block of the backbone and what is added to it, as ``wired`` says."""

    def __init__(self, block: nn.Module, add_on: AddOn, *, source: str, join: str) -> None:
        super().__init__()
        self.block, self.add_on = block, add_on
        self._source, self._join = source, join

    def forward(self, features: Tensor) -> Tensor:
        """``(N, in, H, W)`` to the block's shape."""
        return wired(self.block, self.add_on, features, source=self._source, join=self._join)


def wired(block: nn.Module, add_on: AddOn, features: Tensor, *, source: str, join: str) -> Tensor:
    """A block B and an operation A of an input x in one of the four wirings.

    Where A reads the output of B: A(B(x)) in series, B(x) + A(B(x)) added. Where it reads the input: B(A(x))
    in series, B(x) + A(x) added.
    """
    if source == "input" and join == "series":
        before: Tensor = block(add_on.in_series(features))
        return before
    output = block(features)
    if join == "series":
        return add_on.in_series(output)
    return add_on.added_to(output, features if source == "input" else output)


class Classifier(nn.Module):
    """Global average pooling and a linear layer: ``(N, C, H, W)`` to logits ``(N, classes)``."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, not probabilities."""
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


def operation_of(name: str, channels: int) -> nn.Module:
    """An operation that keeps shape and channels, without the activation at its end.

    Raises:
        ValueError: there is no operation of that name.
    """
    match name:
        case "conv3" | "conv5":
            return ConvBNReLU(channels, channels, int(name[-1]), activate=False)
        case "separable3" | "separable5":
            return nn.Sequential(
                ConvBNReLU(channels, channels, int(name[-1]), groups=channels),
                ConvBNReLU(channels, channels, 1, activate=False),
            )
        case "max_pool":
            return nn.MaxPool2d(3, 1, 1)
        case "average_pool":
            # Averages of what is inside the image only, which is what every runtime's pooling can do.
            return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        case _:
            raise ValueError(f"there is no operation {name!r}")


def module_of(block: Block) -> nn.Module:
    """A fresh module for a block of the add-on space; weights from torch's global generator.

    Raises:
        ValueError: a block of another kind.
    """
    channels, arguments = block.input_shape[0], dict(block.arguments)
    module: nn.Module
    match block.kind:
        case "stem":
            module = ConvBNReLU(channels, kernel=3, **arguments)  # type: ignore[arg-type]
        case "residual":
            module = ResidualBlock(channels, **arguments)  # type: ignore[arg-type]
        case "add_on":
            module = AddOn(channels, **arguments)  # type: ignore[arg-type]
        case "classifier":
            module = Classifier(channels, **arguments)  # type: ignore[arg-type]
        case _:
            raise ValueError(f"the add-on space has no block of kind {block.kind!r}")
    initialise(module)
    return module
