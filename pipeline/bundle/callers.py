"""Example programs that run a bundle's model in C++ and Kotlin, and its bytes as a C header.

The programs are the same for every bundle (``templates/callers``), those in C++ for every runtime but for
``session.h``, and all for every task but for what the outputs mean (``answer.h``, ``Answer.kt``). A file of
constants beside them, made from the manifest, says what the model takes and answers.
"""

from __future__ import annotations

import importlib.resources
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from devices.inventory import runtime_of
from devices.target import Target
from pipeline.bundle.claims import check_descriptions
from pipeline.bundle.descriptions import edges_of
from pipeline.bundle.manifest import Manifest, TargetEntry, TensorDescription, target_slug
from pipeline.bundle.reading import read_bundle
from pipeline.bundle.verification import read_verdict
from pipeline.errors import VerificationError
from pipeline.tasks import Regression
from pipeline.work.disk import disk_errors, write_atomically

_TEMPLATES = "pipeline.bundle.templates"
_BYTES_IN_LINE = 16
_SESSIONS = ("onnxruntime", "litert")
_EXAMPLES = "there are examples for ONNX Runtime, and for LiteRT without an NPU"
_KOTLIN_TYPES = ("float32", "int8", "uint8", "int32", "int64", "bool")
Tensors = tuple[tuple[TensorDescription, ...], tuple[TensorDescription, ...]]
"""Inputs and outputs."""
ALIGNMENT = 64
"""Of the model's bytes in the header: that of a cache line, which every runtime is content with."""


@dataclass(frozen=True)
class Callers:
    """Example programs that were written.

    Attributes:
        files: where they lie, and the headers.
        notes: which targets have no program, or one that does not run as was measured; a sentence for each.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def write_callers(bundle: Path, folder: Path, *, c_header: bool) -> Callers:
    """Write the example programs for each target of a bundle into a folder of its own.

    Args:
        bundle: an unchanged bundle.
        folder: where to; a folder per target is made in it.
        c_header: also write ``model_data.h``, the artifact's bytes as a C and C++ header.

    Raises:
        VerificationError: the bundle was changed, its manifest describes other inputs or outputs than the
            artifacts have, or there is no example for any of it.
        WorkFolderError: the folder cannot be written.
    """
    manifest = read_bundle(bundle)
    for entry in manifest.targets:
        check_descriptions(bundle, entry, read_verdict(bundle, entry))
    written: list[Path] = []
    notes: list[str] = []
    with disk_errors(folder):
        for entry in manifest.targets:
            target = Target.parse(entry.target)
            place = folder / target_slug(target)
            programs = dict(_files(manifest, entry, target, bundle / entry.artifact))
            written += [_write(place / name, text) for name, text in programs.items()]
            if not programs:
                notes.append(f"{target} has no program: {_EXAMPLES}")
            elif (elsewhere := _elsewhere(target)) is not None:
                notes.append(f"{target}: {elsewhere}")
            if c_header:
                artifact = bundle / entry.artifact
                header = c_header_of(artifact.read_bytes(), f"{entry.artifact} of the bundle {manifest.name}")
                written.append(_write(place / "model_data.h", header))
    if not written:
        raise VerificationError(
            f"there is no example program for the bundle {bundle}",
            why=_EXAMPLES,
            fix="ask for the model's bytes with --c-header, or start from the inference script",
        )
    return Callers(tuple(written), tuple(notes))


def c_header_of(content: bytes, what: str) -> str:
    """Bytes as an aligned array with its length, for C11 and C++11.

    Args:
        content: of a model file.
        what: in words, for the header's first line.
    """
    rows = (content[start : start + _BYTES_IN_LINE] for start in range(0, len(content), _BYTES_IN_LINE))
    lines = ",\n".join("  " + ", ".join(f"0x{byte:02x}" for byte in row) for row in rows)
    return f"""/* {what.replace("*/", "* /")}; include it in one source file only. */
#ifndef MODEL_DATA_H
#define MODEL_DATA_H

#include <stddef.h>

#ifdef __cplusplus
#define MODEL_DATA_ALIGNED alignas({ALIGNMENT})
#else
#define MODEL_DATA_ALIGNED _Alignas({ALIGNMENT})
#endif

static const size_t model_data_size = {len(content)};
MODEL_DATA_ALIGNED static const unsigned char model_data[{len(content)}] = {{
{lines}
}};

#endif
"""


def _files(
    manifest: Manifest, entry: TargetEntry, target: Target, artifact: Path
) -> Iterable[tuple[str, str]]:
    """Names and contents of the programs for one target."""
    templates = importlib.resources.files(_TEMPLATES) / "callers"

    def template(name: str) -> str:
        return (templates / name).read_text(encoding="utf-8")

    if target.runtime not in _SESSIONS or "npu" in target.settings:
        return
    tensors = _named(entry, artifact)
    classifier = manifest.classifier
    reads_images = classifier is not None and _takes_reals(entry.inputs[0])
    task = "" if classifier is None else classifier.task.kind.replace("-", "_")
    elsewhere = _elsewhere(target)
    note = "" if elsewhere is None else f"// {elsewhere}\n"
    yield "tensors.h", template("tensors.h")
    yield "session.h", template(f"{target.runtime}.h")
    yield "model_info.h", note + _cpp_constants(manifest, entry, target, tensors, images=reads_images)
    yield "run.cc", template("run.cc")
    if reads_images:
        yield "image.h", template("image.h")
        yield "answer.h", template(f"answer_{task}.h")
        yield "image.cc", template("image.cc")
    if target.runtime == "litert" and all(each.dtype in _KOTLIN_TYPES for each in itertools.chain(*tensors)):
        yield "Tensors.kt", template("Tensors.kt")
        yield "Runner.kt", template("Runner.kt")
        yield "ModelInfo.kt", note + _kotlin_constants(manifest, tensors, images=reads_images)
        if reads_images:
            yield "ImageModel.kt", template("ImageModel.kt")
            yield "Answer.kt", template(f"Answer_{task}.kt")


def _elsewhere(target: Target) -> str | None:
    """Where a model was measured on an accelerator, which the programs do not know: that they use the CPU."""
    runtime = runtime_of(target)
    delegate = runtime.delegate(target)
    if delegate == runtime.delegate(replace(target, options=())):
        return None
    return f"the model was measured on {delegate}, and the programs run it on the CPU"


def _named(entry: TargetEntry, artifact: Path) -> Tensors:
    """Inputs and outputs by the names that the runtime asks for: of LiteRT those of the signature."""
    edges = edges_of(artifact)
    if edges is None:
        return entry.inputs, entry.outputs
    inputs, outputs = (
        tuple(
            each.model_copy(update={"name": edge.names[0], "quantisation": edge.quantisation})
            for each, edge in zip(described, found, strict=True)
        )
        for described, found in zip((entry.inputs, entry.outputs), edges, strict=True)
    )
    return inputs, outputs


def _takes_reals(tensor: TensorDescription) -> bool:
    return tensor.dtype == "float32" or tensor.quantisation is not None


def _cpp_constants(
    manifest: Manifest, entry: TargetEntry, target: Target, tensors: Tensors, *, images: bool
) -> str:
    parts = [
        "// What the model takes and answers, from the manifest of a bundle.",
        '#pragma once\n\n#include "tensors.h"\n\nnamespace model {\n',
        f"constexpr const char* kName = {_quoted(manifest.name)};",
        f"constexpr int kThreads = {target.threads};",
        *_cpp_tensors("Input", tensors[0]),
        *_cpp_tensors("Output", tensors[1]),
    ]
    if images and manifest.classifier is not None:
        image, steps, labels = (
            manifest.classifier.image,
            manifest.classifier.preprocessing,
            manifest.classifier.labels,
        )
        parts += [
            f"constexpr std::size_t kHeight = {image.height}, kWidth = {image.width}, "
            f"kChannels = {image.channels};",
            f"constexpr bool kChannelsFirst = {str(entry.inputs[0].layout == 'NCHW').lower()};",
            f"constexpr float kMean[] = {{{_floats(steps.mean)}}};",
            f"constexpr float kStd[] = {{{_floats(steps.std)}}};",
            f"constexpr bool kProbabilities = {str(manifest.classifier.outputs == 'probabilities').lower()};",
            f"constexpr const char* kLabels[] = {{{_listed(map(_quoted, labels))}}};",
        ]
        if isinstance(task := manifest.classifier.task, Regression):
            parts += [
                f"constexpr double kOutputMean[] = {{{_listed(task.mean)}}};",
                f"constexpr double kOutputStd[] = {{{_listed(task.std)}}};",
            ]
    return "\n".join([*parts, "\n}  // namespace model\n"])


def _cpp_tensors(kind: str, tensors: Sequence[TensorDescription]) -> Iterable[str]:
    rows = []
    for number, each in enumerate(tensors):
        shape = f"k{kind}{number}Shape"
        # An array has one number at least, also where the rank is 0.
        yield f"constexpr std::int64_t {shape}[] = {{{_listed(each.shape or (1,))}}};"
        scale, zero_point = _scale(each)
        rows.append(
            f"{{{_quoted(each.name)}, Type::k{each.dtype.capitalize()}, {shape}, {len(each.shape)}, "
            f"{scale!r}f, {zero_point}}}"
        )
    yield f"constexpr std::size_t k{kind}Count = {len(tensors)};"
    yield f"constexpr Tensor k{kind}s[] = {{{_listed(rows)}}};"


def _kotlin_constants(manifest: Manifest, tensors: Tensors, *, images: bool) -> str:
    lines = ["// What the model takes and answers, from the manifest of a bundle.", "package model", ""]
    for kind, described in zip(("INPUTS", "OUTPUTS"), tensors, strict=True):
        rows = []
        for each in described:
            scale, zero_point = _scale(each)
            shape = f"intArrayOf({_listed(each.shape)})"
            kind_of = f"Type.{each.dtype.upper()}"
            about = (_kotlin_quoted(each.name), kind_of, shape, f"{scale!r}f", zero_point)
            rows.append(f"Tensor({_listed(about)})")
        lines.append(f"val {kind} = listOf({_listed(rows)})")
    if images and manifest.classifier is not None:
        image, steps = manifest.classifier.image, manifest.classifier.preprocessing
        lines += [
            f"const val HEIGHT = {image.height}",
            f"const val WIDTH = {image.width}",
            f"const val CHANNELS = {image.channels}",
            f"val MEAN = floatArrayOf({_floats(steps.mean)})",
            f"val STD = floatArrayOf({_floats(steps.std)})",
            f"const val PROBABILITIES = {str(manifest.classifier.outputs == 'probabilities').lower()}",
            f"val LABELS = listOf({_listed(map(_kotlin_quoted, manifest.classifier.labels))})",
        ]
        if isinstance(task := manifest.classifier.task, Regression):
            lines += [
                f"val OUTPUT_MEAN = floatArrayOf({_floats(task.mean)})",
                f"val OUTPUT_STD = floatArrayOf({_floats(task.std)})",
            ]
    return "\n".join(lines) + "\n"


def _scale(tensor: TensorDescription) -> tuple[float, int]:
    """Scale and zero point, 0 where there are none."""
    about = tensor.quantisation
    return (0.0, 0) if about is None else (about.scale, about.zero_point)


def _floats(values: Iterable[float]) -> str:
    return _listed(f"{float(each)!r}f" for each in values)


def _listed(parts: Iterable[object]) -> str:
    return ", ".join(map(str, parts))


def _quoted(text: str) -> str:
    """A string literal of C++ with these UTF-8 bytes; octal escapes end after three digits."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return (
        '"'
        + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode(errors="replace"))
        + '"'
    )


def _kotlin_quoted(text: str) -> str:
    """A string literal of Kotlin; ``\\u`` takes a unit of UTF-16."""
    units = text.encode("utf-16-be", "replace")
    codes = [int.from_bytes(units[start : start + 2]) for start in range(0, len(units), 2)]
    plain = set(range(0x20, 0x7F)) - set(b'"\\$')
    return '"' + "".join(chr(code) if code in plain else f"\\u{code:04x}" for code in codes) + '"'


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    return path
