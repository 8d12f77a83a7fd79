"""What a model file shows that often costs time, or makes a latency hold for less than one thinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from devices.artifacts.companions import onnx_facts
from devices.artifacts.onnx_file import FLOAT, FLOAT16, OnnxFile
from devices.target import Target
from devices.words import count_of, listed

__all__ = ["Hint", "added", "hints_of", "input_names", "open_inputs"]

VALUES_DECIDE = ("NonMaxSuppression", "NonZero", "Unique", "Loop", "If", "Scan")
"""Operations whose time, or that of what follows them, depends on the inputs' values."""
MANY_SUBNORMAL = 0.001
"""Part of the weights; single ones are in many trained networks."""
FEW_CHANNELS = 8
"""Channels of a group below which a grouped convolution has seldom a kernel of its own."""
ON_PROCESSOR = ("cores",)
"""Options of targets that compute on the processor all the same."""


@dataclass(frozen=True)
class Hint:
    """Something worth knowing of a model.

    Attributes:
        code: for machines.
        detail: for people.
        operation: the one that it is about, whose measured share can be told; empty for the whole model.
    """

    code: str
    detail: str
    operation: str = ""


def hints_of(artifact: Path, target: Target) -> tuple[Hint, ...]:
    """What an ONNX file shows; nothing of other files, and of damaged ones."""
    found = onnx_facts(artifact)
    return () if found is None else tuple(_hints(found, target))


def input_names(artifact: Path) -> tuple[str, ...]:
    """Inputs of an ONNX file; none of other files, and of damaged ones."""
    found = onnx_facts(artifact)
    return () if found is None else tuple(found.inputs)


def open_inputs(artifact: Path) -> tuple[str, ...]:
    """Inputs of an ONNX file with open sizes, in words: for tools that do not tell what they made of them."""
    found = onnx_facts(artifact)
    return tuple(
        f"{name} [{', '.join(map(str, tensor.sizes or ()))}]"
        for name, tensor in (found.inputs.items() if found is not None else ())
        if any(isinstance(size, str) for size in tensor.sizes or ())
    )


def added(kinds: Iterable[str], artifact: Path) -> int | None:
    """How many operations of some kinds are not in the file, so that the runtime added them.

    ``None`` where the file does not tell.
    """
    found = onnx_facts(artifact)
    return None if found is None else sum((Counter(kinds) - found.operations).values())


def _hints(found: OnnxFile, target: Target) -> Iterator[Hint]:
    deciding = [kind for kind in VALUES_DECIDE if found.operations[kind]]
    if deciding:
        yield Hint(
            "values-decide",
            f"values decide the time of {listed(deciding)}: give those of your inputs with --input or --fill",
        )
    if found.replaceable:
        yield Hint(
            "initialisers-are-inputs",
            f"{count_of(found.replaceable, 'initialiser')} can be replaced by inputs of the same name: "
            "a runtime neither folds nor packs them; save the model without them among its inputs",
        )
    if found.subnormal > MANY_SUBNORMAL * found.floats:
        yield Hint(
            "subnormal-weights",
            f"{count_of(found.subnormal, 'weight')} below 1.2e-38 and not 0; processors compute with such "
            "numbers up to hundreds of times slower: set them to 0",
        )
    yield from _of_types(found, target)
    yield from _of_convolutions(found)


def _of_types(found: OnnxFile, target: Target) -> Iterator[Hint]:
    on_processor = target.runtime == "onnxruntime" and not set(target.settings) - set(ON_PROCESSOR)
    if not on_processor:
        return
    if found.types[FLOAT16]:
        yield Hint(
            "fp16-on-a-processor",
            f"{count_of(found.types[FLOAT16], 'weight tensor')} of float16, for which ONNX Runtime has few "
            "kernels on a processor: it adds casts around the others, which --ops shows",
        )
    elif target.precision == "fp16" and found.types[FLOAT]:
        yield Hint(
            "precision-is-a-label",
            "ONNX Runtime computes on a processor in the types of the file, and this one has no float16: the "
            "latency is that of fp32, whatever the target says",
        )
    quantised = any("Quant" in kind or kind.endswith("Integer") for kind in found.operations)
    if target.precision == "int8" and found.types[FLOAT] and not quantised:
        yield Hint(
            "precision-is-a-label",
            "ONNX Runtime computes in the types of the file, and nothing in this one is quantised: the "
            "latency is that of fp32, whatever the target says",
        )


def _of_convolutions(found: OnnxFile) -> Iterator[Hint]:
    for each in found.convolutions:
        if each.groups <= 1 or len(each.weights) < 3:
            continue
        outputs, inputs = each.weights[:2]
        if inputs == 1 and outputs > each.groups:
            yield Hint(
                "depthwise-multiplier",
                f"it gives {outputs // each.groups} outputs for each of {each.groups} channels: runtimes "
                "have fast kernels for one; two depthwise convolutions side by side can be faster",
                each.name,
            )
        elif 1 < inputs < FEW_CHANNELS:
            yield Hint(
                "thin-groups",
                f"it has {each.groups} groups of {inputs} channels: few runtimes have fast kernels for "
                "groups that are neither depthwise nor wide",
                each.name,
            )
