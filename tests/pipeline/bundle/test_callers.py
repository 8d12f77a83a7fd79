"""Example programs agree with the inference script, as far as headers and libraries are at hand.

The C header is always compiled and run, and so is what the C++ programs share. A program itself is compiled
and run where ``LATHE_ORT_INCLUDE`` or ``LATHE_LITERT_INCLUDE`` names the folder of its headers, which no
package of Python has; the library is that of the runtime's package. The name of the test says which it was.
Kotlin is not compiled.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bundle import BundleContent, read_bundle, write_bundle, write_callers
from pipeline.bundle.callers import _kotlin_quoted, _quoted, c_header_of
from pipeline.errors import VerificationError
from tests.pipeline.bundle.test_infer_scripts import infer
from tests.pipeline.tiny_bundles import make_split

COMPILER = shutil.which("g++") or ""
HEADERS = {
    "onnxruntime": os.environ.get("LATHE_ORT_INCLUDE"),
    "litert": os.environ.get("LATHE_LITERT_INCLUDE"),
}
STRICT = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1")


def compile_here(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [COMPILER, *STRICT, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def library(package: str, name: str) -> Path:
    """A shared library in an installed package."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return next(Path(found.origin).parent.rglob(name))


def answers(bundle: Path, folder: Path, program: Path, number: int) -> list[list[str]]:
    """What a program says of the bundle's test images."""
    files = []
    for place, image in enumerate(make_split().images):
        files.append(folder / f"image-{place}.raw")
        files[-1].write_bytes(image.tobytes())
    artifact = bundle / read_bundle(bundle).targets[number].artifact
    done = subprocess.run(
        [program, artifact, *files], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def expected(bundle: Path, folder: Path, runtime: str) -> list[tuple[int, float, str]]:
    np.save(folder / "images.npy", make_split().images)
    done = infer(bundle, runtime, str(folder / "images.npy"))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [(row["index"], row["probability"], row["label"]) for row in rows]


def how(runtime: str) -> str:
    """What is done with a program, for the name of its test."""
    return f"{runtime}-{'compiled and run' if HEADERS[runtime] else 'no headers: only what is shared'}"


@pytest.mark.slow
@pytest.mark.parametrize("runtime", HEADERS, ids=how)
def test_cpp_programs_agree_with_the_inference_script(
    request: pytest.FixtureRequest, tmp_path: Path, runtime: str
) -> None:
    number = 0 if runtime == "onnxruntime" else 1
    content = request.getfixturevalue("litert_content" if number else "bundle_content")
    bundle = write_bundle(content, tmp_path / "bundle")
    write_callers(bundle, tmp_path / "examples", c_header=False)
    folder = tmp_path / "examples" / f"host_{runtime}_fp32_1"
    (folder / "shared.cc").write_text('#include "classify.h"\nint main() { return model::kClasses != 3; }\n')
    compile_here(folder, "shared.cc", "-o", "shared")
    assert subprocess.run([folder / "shared"], check=False).returncode == 0
    if (headers := HEADERS[runtime]) is not None:
        agrees(bundle, folder, runtime, number, headers)


def agrees(bundle: Path, folder: Path, runtime: str, number: int, headers: str) -> None:
    """Compile the program of a runtime, and compare what it says with the inference script."""
    shared = library(
        *(("ai_edge_litert", "libLiteRt.so") if number else ("onnxruntime", "libonnxruntime.so.*"))
    )
    name = "libLiteRt.so" if number else "libonnxruntime.so.1"
    (folder / name).symlink_to(shared)
    compile_here(
        folder,
        f"-isystem{headers}",
        "classify.cc",
        name,
        f"-Wl,-rpath,{folder}:{shared.parent}",
        "-Wl,--allow-shlib-undefined",
        "-o",
        "classify",
    )
    found = answers(bundle, folder, folder / "classify", number)
    for (index, probability, label), wanted in zip(found, expected(bundle, folder, runtime), strict=True):
        assert (int(index), label) == (wanted[0], wanted[2])
        assert float(probability) == pytest.approx(wanted[1], abs=1e-5)


@pytest.mark.parametrize("compiler", [("gcc", "-std=c11"), ("g++", "-std=c++11")])
def test_the_header_holds_the_bytes_of_the_model_aligned(
    written_bundle: Path, tmp_path: Path, compiler: tuple[str, str]
) -> None:
    write_callers(written_bundle, tmp_path, c_header=True)
    folder = tmp_path / "host_onnxruntime_fp32_1"
    source = folder / ("main.c" if compiler[0] == "gcc" else "main.cc")
    source.write_text(
        '#include <stdint.h>\n#include <stdio.h>\n#include "model_data.h"\n'
        "int main(void) {\n  if ((uintptr_t)model_data % 64) return 3;\n"
        "  return fwrite(model_data, 1, model_data_size, stdout) != model_data_size;\n}\n"
    )
    subprocess.run(
        [*compiler, "-Wall", "-Wextra", "-Werror", str(source), "-o", str(folder / "program")],
        check=True,
        timeout=120,
    )
    done = subprocess.run([folder / "program"], capture_output=True, check=True, timeout=60)
    (entry,) = read_bundle(written_bundle).targets
    assert done.stdout == (written_bundle / entry.artifact).read_bytes()


def test_a_comment_cannot_be_ended_by_a_name() -> None:
    assert c_header_of(b"ab", "x */ int main;").splitlines()[0].count("*/") == 1


@pytest.mark.slow
@settings(max_examples=5)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=20)
)
def test_any_label_is_the_same_text_in_cpp(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    lines = "".join(f"  std::fwrite({_quoted(text)}, 1, {len(text.encode())}, stdout);\n" for text in texts)
    (folder / "main.cc").write_text(f"#include <cstdio>\nint main() {{\n{lines}}}\n")
    compile_here(folder, "main.cc", "-o", "program")
    done = subprocess.run([folder / "program"], capture_output=True, check=True, timeout=60)
    assert done.stdout == "".join(texts).encode()


@given(st.text())
def test_a_label_in_kotlin_has_neither_quotes_nor_templates_of_its_own(text: str) -> None:
    inside = _kotlin_quoted(text)[1:-1]
    assert inside.isascii()
    assert not set('"$\n') & set(inside)
    if not any("\ud800" <= each <= "\udfff" for each in text):
        assert json.loads(f'"{inside}"') == text


@pytest.mark.slow
def test_kotlin_is_written_for_litert(litert_content: BundleContent, tmp_path: Path) -> None:
    bundle = write_bundle(litert_content, tmp_path / "bundle")
    files = write_callers(bundle, tmp_path / "examples", c_header=False)
    kotlin = [file for file in files if file.suffix == ".kt"]
    assert {file.parent.name for file in kotlin} == {"host_litert_fp32_1"}
    constants = next(file for file in kotlin if file.name == "ModelInfo.kt").read_text()
    assert "const val HEIGHT = 4\nconst val WIDTH = 4\nconst val CHANNELS = 1\n" in constants
    assert "val MEAN = floatArrayOf(0.4f)\nval STD = floatArrayOf(0.25f)\n" in constants
    assert 'val LABELS = listOf("top", "bottom", "neither, or <b>both</b>")' in constants


def test_a_model_that_is_no_classifier_has_its_bytes_only(
    compiled_content: BundleContent, tmp_path: Path
) -> None:
    bundle = write_bundle(compiled_content, tmp_path / "bundle")
    with pytest.raises(VerificationError, match="no example program"):
        write_callers(bundle, tmp_path / "examples", c_header=False)
    (header,) = write_callers(bundle, tmp_path / "examples", c_header=True)
    assert header.name == "model_data.h"


def test_a_changed_bundle_gets_no_examples(own_bundle: Path, tmp_path: Path) -> None:
    (own_bundle / "recipe.toml").write_text("")
    with pytest.raises(VerificationError, match=r"recipe\.toml was changed"):
        write_callers(own_bundle, tmp_path / "examples", c_header=True)


def test_the_constants_keep_what_the_manifest_says(bundle_content: BundleContent, tmp_path: Path) -> None:
    assert bundle_content.classifier is not None
    odd = replace(bundle_content.classifier, labels=('a "quote"', "back\\slash ??/", "grün\n"))
    bundle = write_bundle(replace(bundle_content, classifier=odd), tmp_path / "bundle")
    write_callers(bundle, tmp_path / "examples", c_header=False)
    folder = tmp_path / "examples" / "host_onnxruntime_fp32_1"
    (folder / "main.cc").write_text(
        '#include "classify.h"\nint main() { for (auto each : model::kLabels) std::fputs(each, stdout); }\n'
    )
    compile_here(folder, "main.cc", "-o", "program")
    done = subprocess.run([folder / "program"], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode() == "".join(odd.labels)
