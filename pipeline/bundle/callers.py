"""Example programs that run a bundle's model in C++ and Kotlin, and its bytes as a C header.

The programs are the same for every bundle (``templates/callers``); a file of constants beside them, made from
the manifest, says what the model takes and answers.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from pathlib import Path

from devices.target import Target
from pipeline.bundle.manifest import ClassifierDescription, Manifest, TargetEntry, target_slug
from pipeline.bundle.reading import read_bundle
from pipeline.errors import VerificationError
from pipeline.work.disk import disk_errors, write_atomically

_TEMPLATES = "pipeline.bundle.templates"
_BYTES_IN_LINE = 16
ALIGNMENT = 64
"""Of the model's bytes in the header: that of a cache line, which every runtime is content with."""


def write_callers(bundle: Path, folder: Path, *, c_header: bool) -> tuple[Path, ...]:
    """Write the example programs for each target of a bundle into a folder of its own.

    Args:
        bundle: an unchanged bundle of a classifier.
        folder: where to; a folder per target is made in it.
        c_header: also write ``model_data.h``, the artifact's bytes as a C and C++ header.

    Returns:
        The files.

    Raises:
        VerificationError: the bundle was changed, or there is no example for any of it.
        WorkFolderError: the folder cannot be written.
    """
    manifest = read_bundle(bundle)
    written: list[Path] = []
    with disk_errors(folder):
        for entry in manifest.targets:
            target = Target.parse(entry.target)
            place = folder / target_slug(target)
            for name, text in _files(manifest, entry, target):
                written.append(_write(place / name, text))
            if c_header:
                artifact = bundle / entry.artifact
                header = c_header_of(artifact.read_bytes(), f"{entry.artifact} of the bundle {manifest.name}")
                written.append(_write(place / "model_data.h", header))
    if not written:
        raise VerificationError(
            f"there is no example program for the bundle {bundle}",
            why="there are examples for classifiers of images with ONNX Runtime and LiteRT",
            fix="ask for the model's bytes with --c-header, or start from the inference script",
        )
    return tuple(written)


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


def _files(manifest: Manifest, entry: TargetEntry, target: Target) -> Iterable[tuple[str, str]]:
    """Names and contents of the programs for one target."""
    image = entry.inputs[0]
    templates = importlib.resources.files(_TEMPLATES) / "callers"
    program = templates / f"{target.runtime}.cc"
    classifier = manifest.classifier
    if classifier is None or image.dtype != "float32" or not program.is_file():
        return
    yield "classify.h", (templates / "classify.h").read_text(encoding="utf-8")
    yield "classify.cc", program.read_text(encoding="utf-8")
    yield "model_info.h", _cpp_constants(manifest.name, classifier, entry, target)
    kotlin = templates / f"{target.runtime}.kt"
    if kotlin.is_file():
        yield "Classifier.kt", kotlin.read_text(encoding="utf-8")
        yield "ModelInfo.kt", _kotlin_constants(classifier)


def _cpp_constants(name: str, classifier: ClassifierDescription, entry: TargetEntry, target: Target) -> str:
    image, steps = classifier.image, classifier.preprocessing
    first, result = entry.inputs[0], entry.outputs[0]
    return f"""// What the model takes and answers, from the manifest of a bundle.
#pragma once

#include <cstddef>
#include <cstdint>

namespace model {{

constexpr const char* kName = {_quoted(name)};
constexpr int kThreads = {target.threads};
constexpr std::size_t kHeight = {image.height}, kWidth = {image.width}, kChannels = {image.channels};
constexpr std::size_t kClasses = {len(classifier.labels)};
constexpr bool kChannelsFirst = {str(first.layout == "NCHW").lower()};
constexpr const char* kInput = {_quoted(first.name)};
constexpr const char* kOutput = {_quoted(result.name)};
constexpr std::int64_t kInputShape[] = {{{_listed(first.shape)}}};
constexpr std::int64_t kOutputShape[] = {{{_listed(result.shape)}}};
constexpr float kMean[] = {{{_listed(f"{float(each)!r}f" for each in steps.mean)}}};
constexpr float kStd[] = {{{_listed(f"{float(each)!r}f" for each in steps.std)}}};
constexpr const char* kLabels[] = {{{_listed(map(_quoted, classifier.labels))}}};

}}  // namespace model
"""


def _kotlin_constants(classifier: ClassifierDescription) -> str:
    image, steps = classifier.image, classifier.preprocessing
    return f"""// What the model takes and answers, from the manifest of a bundle.
package model

const val HEIGHT = {image.height}
const val WIDTH = {image.width}
const val CHANNELS = {image.channels}
val MEAN = floatArrayOf({_listed(f"{float(each)!r}f" for each in steps.mean)})
val STD = floatArrayOf({_listed(f"{float(each)!r}f" for each in steps.std)})
val LABELS = listOf({_listed(map(_kotlin_quoted, classifier.labels))})
"""


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
