"""Training in float that computes as int8 will: fake quantisation (1712.05877, section 3).

Rounding follows what both runtimes do with a network: weights are symmetric per output channel, the inputs of
operators and the logits asymmetric per tensor, all of 8 bits. A BatchNorm that is folded into a convolution
scales channels, and so the rounding of its weights stays the same.

Nothing that is learned here has to be handed to an exporter: a quantiser finds the scales of the weights in
the weights, and the ranges of activations over the same calibration images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.data.base import Dataset
from pipeline.distill.crash_marker import Tell
from pipeline.distill.settings import TrainingResult, TrainingSettings
from pipeline.distill.targets import SoftTargets
from pipeline.distill.training import OnEpoch, fit
from pipeline.errors import VerificationError

_BATCH = 64
_SMALLEST_RANGE = 0.01
"""As the quantisers of ``pipeline.compile`` have it."""
_LOW, _HIGH = "int8_low", "int8_high"
"""Buffers of the network itself, so that a checkpoint holds the ranges."""

# Axis of the output channels in the weights of operators that have any.
_WEIGHTED = {
    "conv1d": 0,
    "conv2d": 0,
    "conv3d": 0,
    "linear": 0,
    "conv_transpose1d": 1,
    "conv_transpose2d": 1,
    "conv_transpose3d": 1,
}
_OTHERS = frozenset(
    {
        *("add", "sub", "mul", "div", "matmul", "bmm", "cat", "mean", "sum", "softmax", "layer_norm"),
        *("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "interpolate"),
        *("hardswish", "silu", "gelu", "sigmoid", "hardsigmoid", "tanh", "scaled_dot_product_attention"),
    }
)


def fine_tune_in_int8(
    network: nn.Module,
    dataset: Dataset,
    settings: TrainingSettings,
    *,
    seed: int,
    calibration: Tensor,
    goal: float,
    targets: SoftTargets | None = None,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
    tell: Tell = lambda line: None,
) -> TrainingResult:
    """Train a finished network in place so that less is lost when it is quantised; it stays in float.

    Args:
        network: trained, ``(N, C, H, W)`` to logits ``(N, classes)``.
        dataset: as ``pipeline.distill.training.fit`` takes it; so are the other arguments.
        settings: schedule and losses.
        seed: of order and augmentation.
        calibration: preprocessed images ``(N, C, H, W)`` over which the first ranges are found.
        goal: accuracy on the validation slice, computed as int8 will, at which the training ends.
        targets: what the teacher says.
        checkpoint: file written after every epoch.
        on_epoch: called after every epoch.
        tell: called with a line when an earlier process died in the middle.

    Raises:
        TrainingDiverged: the loss is not finite.
        TeacherError: a loss compares layers that do not belong together.
        VerificationError: the network makes other calls when it trains.
    """
    with fake_quantised(network, calibration):
        return fit(
            network,
            dataset,
            # A network that rounds is changed in a way that goes to no other process.
            settings.model_copy(update={"processes": 1, "precision": "fp32"}),
            seed=seed,
            targets=targets,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            what="fine-tuning the student for int8",
            tell=tell,
            goal=goal,
        )


@contextmanager
def fake_quantised(network: nn.Module, calibration: Tensor) -> Iterator[None]:
    """While the block runs, the network rounds as its int8 form will; its parameters stay what they are.

    The ranges of activations are those over the calibration images, as a quantiser will find them; when it is
    evaluated after training, they are found anew.

    Args:
        network: any that makes the same calls for every batch; left in evaluation mode.
        calibration: ``(N, C, H, W)`` float32.

    Raises:
        VerificationError: later, when the network makes other calls in training than in evaluation.
    """
    network.eval()
    for name, values in zip((_LOW, _HIGH), _ranges_over(network, calibration), strict=True):
        network.register_buffer(name, values)
    rounded = _Rounded(calibration)
    handles = (
        network.register_forward_pre_hook(rounded.begin),
        network.register_forward_hook(rounded.end, always_call=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        delattr(network, _LOW)
        delattr(network, _HIGH)


def _ranges_over(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value at every place where an activation is rounded, in the order of the calls.

    The network runs without its own hooks, in float.
    """
    lows, highs = list[Tensor](), list[Tensor]()
    with torch.no_grad():
        for batch in torch.split(images.to(_device(network)), _BATCH):
            seen = list[Tensor]()

            def note(place: int, values: Tensor, seen: list[Tensor] = seen) -> Tensor:
                seen.append(torch.stack(torch.aminmax(values)))
                return values

            with _Rounding(note) as mode:
                logits = network.forward(batch)
            mode.activation(logits)
            low, high = torch.stack(seen).unbind(1)
            lows.append(low)
            highs.append(high)
    return torch.stack(lows).amin(0), torch.stack(highs).amax(0)


class _Rounded:
    """The hooks by which a network rounds while it runs."""

    def __init__(self, calibration: Tensor) -> None:
        self._calibration, self._trained = calibration, False
        self._running: list[tuple[_Rounding, ExitStack]] = []

    def begin(self, network: nn.Module, inputs: Any) -> None:
        """From here on calls are rounded."""
        if self._trained and not network.training:
            for name, values in zip((_LOW, _HIGH), _ranges_over(network, self._calibration), strict=True):
                network.get_buffer(name).copy_(values)
        self._trained = network.training
        mode = _Rounding(partial(_rounded_activation, network), weights=True)
        stack = ExitStack()
        stack.enter_context(mode)
        self._running.append((mode, stack))

    def end(self, network: nn.Module, inputs: Any, logits: Any) -> Any:
        """Up to here, logits included."""
        mode, stack = self._running.pop()
        stack.close()
        if not isinstance(logits, Tensor):
            # The call failed.
            return None
        rounded = mode.activation(logits)
        if mode.places != len(network.get_buffer(_LOW)):
            raise _other_calls()
        return rounded


def _device(network: nn.Module) -> torch.device:
    return next((each.device for each in network.parameters()), torch.device("cpu"))


def _rounded_activation(network: nn.Module, place: int, values: Tensor) -> Tensor:
    lows, highs = network.get_buffer(_LOW), network.get_buffer(_HIGH)
    if place >= len(lows):
        raise _other_calls()
    # 0 must be a value of its own: paddings are 0.
    low = lows[place].clamp(max=0.0)
    high = torch.maximum(highs[place].clamp(min=0.0), low + _SMALLEST_RANGE)
    scale = (high - low) / 255
    zero = (-low / scale).round().to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, 255)


def _other_calls() -> VerificationError:
    return VerificationError(
        "the network cannot be fine-tuned for int8",
        why="it makes other calls when it trains than when it is evaluated",
        fix="set compile.fine_tuning_epochs = 0 to quantise it as it is",
    )


class _Rounding(TorchFunctionMode):
    """Rounds, while it is entered, what operators are given that have integer kernels.

    Args:
        round_activation: gets the number of the place and the values.
        weights: they are rounded too.
    """

    def __init__(self, round_activation: Callable[[int, Tensor], Tensor], *, weights: bool = False) -> None:
        super().__init__()
        self._round_activation, self._weights = round_activation, weights
        self.places = 0

    def activation(self, values: Tensor) -> Tensor:
        """Round at the next place."""
        self.places += 1
        return self._round_activation(self.places - 1, values)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the call on rounded values."""
        name, kwargs = getattr(func, "__name__", "").partition(".")[0], dict(kwargs or {})
        if name in _WEIGHTED:
            given, weight = (
                args[place] if place < len(args) else kwargs.pop(key)
                for place, key in enumerate(("input", "weight"))
            )
            weight = _rounded_weight(weight, _WEIGHTED[name]) if self._weights else weight
            return func(self.activation(given), weight, *args[2:], **kwargs)
        in_place = name.endswith("_") and not name.endswith("__")
        if name.removesuffix("_") not in _OTHERS:
            return func(*args, **kwargs)
        # A mask beside them is added where it is, and holds -inf.
        kept = {"attn_mask": kwargs.pop("attn_mask")} if "attn_mask" in kwargs else {}
        count = 3 if name == "scaled_dot_product_attention" else len(args)
        rounded = [self._round(each) for each in args[:count]]
        by_name = {key: self._round(each) for key, each in kwargs.items()}
        result = func(*rounded, *args[count:], **by_name, **kept)
        return args[0].copy_(result) if in_place and result is not args[0] else result

    def _round(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(self._round, value))
        is_activation = isinstance(value, Tensor) and not isinstance(value, nn.Parameter)
        return (
            self.activation(value) if is_activation and value.is_floating_point() and value.dim() else value
        )


def _rounded_weight(weight: Tensor, axis: int) -> Tensor:
    others = [each for each in range(weight.dim()) if each != axis]
    scale = weight.detach().abs().amax(others).clamp(min=torch.finfo(torch.float32).tiny) / 127
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -127, 127)
