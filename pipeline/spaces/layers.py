"""Torch modules of the mobile space: stem, its kinds of layers with squeeze-and-excite, head.

ReLU is used throughout and hard sigmoid in the gates: both are single operators that ONNX Runtime and LiteRT
fuse or run natively, whereas ReLU6 becomes a clip that is not always fused. Every convolution is followed by
BatchNorm, which export folds into the weights. Every padding is ``kernel // 2``, so a stride of 2 gives
``ceil(size / 2)`` and any size down to 1x1 works.
"""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.spaces.base import Block
from pipeline.spaces.cost import squeezed_channels


class ConvBNReLU(nn.Sequential):
    """Convolution, BatchNorm and, unless ``activate`` is false, ReLU; a stride divides height and width."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        if activate:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class SqueezeExcite(nn.Module):
    """Channel gates from globally pooled features (1709.01507): shape is kept."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU(inplace=True)
        self.gate = nn.Hardsigmoid(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Scale every channel by its gate in [0, 1]."""
        pooled = features.mean((2, 3), keepdim=True)
        gates: Tensor = self.gate(self.expand(self.activation(self.reduce(pooled))))
        return features * gates


class _Layer(nn.Module):
    """``layers`` and, where shape and channels are kept, a skip path that is added to their output.

    Args:
        layers: run in order.
        keeps_shape: whether the output has the shape and channels of the input.
        residual: whether there may be a skip path.
        pool: kernel of the averages that the skip path takes of the input; 0 is the input itself.
    """

    def __init__(self, layers: list[nn.Module], *, keeps_shape: bool, residual: bool, pool: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.residual = residual and keeps_shape
        # Averages of what is inside the image only, which is what every runtime's pooling can do.
        self.pool = nn.AvgPool2d(pool, 1, pool // 2, count_include_pad=False) if pool else None

    def forward(self, features: Tensor) -> Tensor:
        """Run the layers and add the skip path."""
        result: Tensor = self.layers(features)
        if not self.residual:
            return result
        return (features if self.pool is None else self.pool(features)) + result


class InvertedResidual(_Layer):
    """Expand 1x1, depthwise, optional squeeze-and-excite, project 1x1 (1801.04381, 1807.11626).

    ``(N, in, H, W)`` to ``(N, out, ceil(H/stride), ceil(W/stride))``. An expansion of 1 has no expanding
    convolution, which leaves a depthwise-separable one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        squeeze_excite: float,
        residual: bool = True,
        pool: int = 0,
    ) -> None:
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(ConvBNReLU(in_channels, hidden, 1))
        layers.append(ConvBNReLU(hidden, hidden, kernel, stride=stride, groups=hidden))
        if squeeze_excite > 0:
            layers.append(SqueezeExcite(hidden, squeezed_channels(in_channels, squeeze_excite)))
        layers.append(ConvBNReLU(hidden, out_channels, 1, activate=False))
        keeps_shape = stride == 1 and in_channels == out_channels
        super().__init__(layers, keeps_shape=keeps_shape, residual=residual, pool=pool)


class RegularConvolution(_Layer):
    """Convolution over all channels, optional squeeze-and-excite (an operation of MnasNet, 1807.11626).

    ``(N, in, H, W)`` to ``(N, out, ceil(H/stride), ceil(W/stride))``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        squeeze_excite: float,
        residual: bool = True,
        pool: int = 0,
    ) -> None:
        layers: list[nn.Module] = [ConvBNReLU(in_channels, out_channels, kernel, stride=stride)]
        if squeeze_excite > 0:
            layers.append(SqueezeExcite(out_channels, squeezed_channels(in_channels, squeeze_excite)))
        keeps_shape = stride == 1 and in_channels == out_channels
        super().__init__(layers, keeps_shape=keeps_shape, residual=residual, pool=pool)


class Head(nn.Module):
    """Convolution 1x1, global average pooling, linear classifier: ``(N, C, H, W)`` to ``(N, classes)``."""

    def __init__(self, in_channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.features = ConvBNReLU(in_channels, width, 1)
        self.classifier = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, not probabilities."""
        pooled = self.features(features).mean((2, 3))
        logits: Tensor = self.classifier(pooled)
        return logits


def module_of(block: Block) -> nn.Module:
    """A fresh module for a block of any space of mobile networks; weights from torch's global generator.

    Raises:
        ValueError: a block of another kind.
    """
    channels, arguments = block.input_shape[0], dict(block.arguments)
    module: nn.Module
    match block.kind:
        case "stem":
            module = ConvBNReLU(channels, kernel=3, **arguments)  # type: ignore[arg-type]
        case "mbconv":
            module = InvertedResidual(channels, **arguments)  # type: ignore[arg-type]
        case "regular":
            module = RegularConvolution(channels, **arguments)  # type: ignore[arg-type]
        case "head":
            module = Head(channels, **arguments)  # type: ignore[arg-type]
        case _:
            raise ValueError(f"mobile networks have no block of kind {block.kind!r}")
    initialise(module)
    return module


def initialise(module: nn.Module) -> None:
    """Kaiming normal (fan out) for convolutions, small normal for linear layers; torch's global generator."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
