"""Small networks with every kind of removable structure, with statistics as training leaves them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.methods.subgraph.attention import separate_heads
from pipeline.methods.subgraph.structures import NORMS
from pipeline.teachers.resnet import resnet_cifar

SHAPE = (3, 16, 16)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a residual, as in ResNet-50."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.expand = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        inner = self.norm1(self.reduce(images)).relu()
        inner = self.norm2(self.conv(inner)).relu()
        return (images + self.norm3(self.expand(inner))).relu()


class Projected(nn.Module):
    """A block that changes the number of channels, as at the beginning of a stage."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.project = nn.Conv2d(channels, outputs, 1, stride=2, bias=False)
        self.norm_of_project = nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor) -> Tensor:
        return (self.norm(self.conv(images)) + self.norm_of_project(self.project(images))).relu()


class Attention(nn.Module):
    """One head of attention over tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.queries, self.keys, self.values = (nn.Linear(channels, channels) for _ in range(3))
        self.project = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm(tokens)
        scores = self.queries(tokens) @ self.keys(tokens).transpose(1, 2)
        return self.project(scores.softmax(dim=-1) @ self.values(tokens))


class TransformerLayer(nn.Module):
    """Attention and a perceptron, each added to its input, as in a vision transformer."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.attention = Attention(channels)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, inner), nn.GELU(), nn.Linear(inner, channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(tokens)
        return tokens + self.perceptron(tokens)


class Transformer(nn.Module):
    """Patches, two layers, mean of the tokens."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(12)
        self.classifier = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.classifier(self.norm(self.layers(tokens)).mean(dim=1))


class Separate(nn.Module):
    """Attention of several heads with layers of their own for queries, keys and values."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        # In this order, so that no reading can go by it.
        self.value, self.query, self.key = (nn.Linear(channels, channels) for _ in range(3))
        self.dense = nn.Linear(channels, channels)
        self.num_heads = heads

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        count, length, channels = tokens.shape

        def separated(values: Tensor) -> Tensor:
            return values.view(count, length, self.num_heads, -1).transpose(1, 2)

        queries, keys, values = (separated(layer(tokens)) for layer in (self.query, self.key, self.value))
        weights = (queries @ keys.transpose(2, 3) * (channels // self.num_heads) ** -0.5).softmax(dim=-1)
        return self.dense((weights @ values).transpose(1, 2).reshape(count, length, channels)), weights


class Fused(nn.Module):
    """Attention of several heads with one layer for queries, keys and values, as in timm."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, channels = tokens.shape
        parts = self.qkv(tokens).reshape(count, length, 3, self.num_heads, channels // self.num_heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        outputs = functional.scaled_dot_product_attention(queries, keys, values)
        return self.proj(outputs.transpose(1, 2).reshape(count, length, channels))


class HeadedLayer(nn.Module):
    """Attention of several heads and a perceptron; the attention may give its weights, too."""

    def __init__(self, channels: int, inner: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = attention
        self.perceptron = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, inner), nn.GELU(), nn.Linear(inner, channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        if isinstance(self.attention, nn.MultiheadAttention):
            tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        else:
            given = self.attention(normed)
            tokens = tokens + (given[0] if isinstance(given, tuple) else given)
        return tokens + self.perceptron(tokens)


class Inverted(nn.Module):
    """1x1, depthwise, squeeze-and-excite, 1x1 with a residual, as in MobileNetV3."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
        )
        self.squeeze = nn.Conv2d(inner, 4, 1)
        self.excite = nn.Conv2d(4, inner, 1)
        self.project = nn.Sequential(nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, images: Tensor) -> Tensor:
        inner = self.depthwise(self.expand(images))
        scale = self.excite(self.squeeze(inner.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return images + self.project(inner * scale)


class Grouped(nn.Module):
    """1x1, 3x3 in groups, 1x1 with a residual, as in ResNeXt."""

    def __init__(self, channels: int, inner: int, groups: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner), nn.ReLU())
        self.grouped = nn.Conv2d(inner, inner, 3, padding=1, groups=groups)
        self.norm = nn.BatchNorm2d(inner)
        self.expand = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, images: Tensor) -> Tensor:
        inner = functional.relu(self.norm(self.grouped(self.reduce(images))))
        return functional.relu(images + self.expand(inner))


class GroupNormed(nn.Module):
    """Two convolutions with group norms and a residual."""

    def __init__(self, channels: int, inner: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, inner, 3, padding=1), nn.GroupNorm(groups, inner))
        self.second = nn.Sequential(nn.Conv2d(inner, channels, 3, padding=1), nn.GroupNorm(groups, channels))

    def forward(self, images: Tensor) -> Tensor:
        return functional.relu(images + self.second(functional.relu(self.first(images))))


class Branches(nn.Module):
    """3x3, 1x1 and a norm alone, added, as in RepVGG."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.thin = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.alone = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        return functional.relu(self.wide(images) + self.thin(images) + self.alone(images))


class Reused(nn.Module):
    """One convolution called twice: nothing in it can be removed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.conv(images)).mean((2, 3))


def seeded(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A network that is the same each time."""

    @functools.wraps(build)
    def same() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build()

    return same


@seeded
def plain() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU()]
    return trained(nn.Sequential(*layers, *head(12)))


@seeded
def bottlenecks() -> nn.Module:
    stem = [nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()]
    return trained(nn.Sequential(*stem, Bottleneck(12, 6), Bottleneck(12, 6), *head(12)))


@seeded
def inverted() -> nn.Module:
    stem = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)]
    return trained(nn.Sequential(*stem, Inverted(8, 16), *head(8)))


@seeded
def resnet() -> nn.Module:
    return trained(resnet_cifar(8, classes=5, width=8))


@seeded
def projected() -> nn.Module:
    """A residual whose first block has a projection, and two more: their sums share channels."""
    return trained(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            Projected(8, 12),
            Bottleneck(12, 6),
            Bottleneck(12, 4),
            *head(12),
        )
    )


@seeded
def grouped() -> nn.Module:
    stem = [nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()]
    return trained(nn.Sequential(*stem, Grouped(12, 15, 5), Grouped(12, 8, 4), *head(12)))


@seeded
def group_normed() -> nn.Module:
    stem = [nn.Conv2d(3, 12, 3, padding=1), nn.GroupNorm(4, 12), nn.ReLU()]
    return trained(nn.Sequential(*stem, GroupNormed(12, 8, 4), GroupNormed(12, 16, 4), *head(12)))


@seeded
def branches() -> nn.Module:
    stem = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return trained(nn.Sequential(*stem, Branches(8), Branches(8), *head(8)))


@seeded
def instance_normed() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8)]
    layers += [nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU()]
    return trained(nn.Sequential(*layers, *head(12)))


@seeded
def without_scales() -> nn.Module:
    """Norms that have no weights, and layers that have no norm, one of them transposed."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False), nn.ReLU()]
    layers += [nn.ConvTranspose2d(8, 10, 2, stride=2), nn.ReLU(), nn.Conv2d(10, 12, 3, stride=2), nn.ReLU()]
    return trained(nn.Sequential(*layers, *head(12)))


@seeded
def transformer() -> nn.Module:
    return Transformer([TransformerLayer(12, 16), TransformerLayer(12, 16)]).eval()


@seeded
def separate() -> nn.Module:
    return with_heads(lambda: Separate(12, 3))


@seeded
def fused() -> nn.Module:
    return with_heads(lambda: Fused(12, 4))


@seeded
def multihead() -> nn.Module:
    return with_heads(lambda: nn.MultiheadAttention(12, 3, batch_first=True))


def with_heads(attention: Callable[[], nn.Module]) -> nn.Module:
    """A transformer whose heads can be removed."""
    network = Transformer([HeadedLayer(12, 16, attention()), HeadedLayer(12, 16, attention())]).eval()
    separate_heads(network, images(2))
    return network


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]


def trained(network: nn.Module) -> nn.Module:
    """Scales, biases and statistics as training leaves them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (*NORMS, nn.LayerNorm)) and module.weight is not None:
                module.weight.uniform_(0.3, 1.5, generator=generator)
                module.bias.normal_(generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def images(count: int = 4) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(2))


WITH_SCALES = (
    plain,
    bottlenecks,
    inverted,
    resnet,
    projected,
    grouped,
    group_normed,
    branches,
    instance_normed,
    transformer,
    separate,
    fused,
    multihead,
)
"""Every kind of network whose gated layers have parameters, so that zeros in these silence them."""

NETWORKS = (*WITH_SCALES, without_scales)
"""Every kind of network."""
