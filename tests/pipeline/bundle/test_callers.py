"""Example programs agree with the inference script, as far as headers and libraries are at hand.

The C header is always compiled and run, and so are the C++ programs, with a session that echoes its inputs.
Sessions themselves run where ``LATHE_ORT_INCLUDE`` or ``LATHE_LITERT_INCLUDE`` names the folder of the
runtime's headers, which no package of Python has; the library is that of the runtime's package. The name of
the test says which it was. Of Kotlin the grammar is checked.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.target import Target
from pipeline.bundle import BundleContent, read_bundle, write_bundle, write_callers
from pipeline.bundle.callers import (
    _cpp_constants,
    _kotlin_constants,
    _kotlin_quoted,
    _quoted,
    c_header_of,
)
from pipeline.bundle.manifest import Quantisation, TensorDescription
from pipeline.bundle.templates.infer_common import _meaning
from pipeline.errors import VerificationError
from pipeline.tasks import SINGLE_LABEL, AnyTask, Embedding, MultiLabel, Regression
from tests.pipeline.bundle.stand_ins import ECHO_SESSION, ORT_HEADER
from tests.pipeline.bundle.test_infer_scripts import infer
from tests.pipeline.tiny_bundles import make_split, with_program

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
    return f"{runtime}-{'compiled and run' if HEADERS[runtime] else 'no headers: compiled only'}"


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
    (folder / "shared.cc").write_text('#include "image.h"\nint main() { return model::kHeight != 4; }\n')
    compile_here(folder, "shared.cc", "-o", "shared")
    assert subprocess.run([folder / "shared"], check=False).returncode == 0
    (folder / "onnxruntime_c_api.h").write_text(ORT_HEADER)
    if runtime == "onnxruntime":
        compile_here(folder, "-fsyntax-only", "-I.", "image.cc")
        compile_here(folder, "-fsyntax-only", "-I.", "run.cc")
    (folder / "onnxruntime_c_api.h").unlink()
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
        "image.cc",
        name,
        f"-Wl,-rpath,{folder}:{shared.parent}",
        "-Wl,--allow-shlib-undefined",
        "-o",
        "image",
    )
    found = answers(bundle, folder, folder / "image", number)
    for (index, probability, label), wanted in zip(found, expected(bundle, folder, runtime), strict=True):
        assert (int(index), label) == (wanted[0], wanted[2])
        assert float(probability) == pytest.approx(wanted[1], abs=1e-5)


OUTPUTS = np.array([[0.3, -1.7, 2.1], [-0.2, 0.0, 40.0]], np.float32)


def with_task(content: BundleContent, task: AnyTask) -> BundleContent:
    """The same bundle for another task, without an accuracy."""
    assert content.classifier is not None
    targets = tuple(replace(each, verdict=replace(each.verdict, accuracy=None)) for each in content.targets)
    classifier = replace(content.classifier, task=task, test=None)
    return replace(content, classifier=classifier, targets=targets)


@pytest.mark.slow
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize(
    "task",
    [SINGLE_LABEL, MultiLabel(), Regression((10.0, -3.0, 0.5), (2.5, 1e-3, 40.0)), Embedding()],
    ids=lambda task: task.kind,
)
def test_answers_in_cpp_are_those_of_the_inference_script_for_every_task(
    bundle_content: BundleContent, tmp_path: Path, task: AnyTask, *, probabilities: bool
) -> None:
    content = with_task(bundle_content, task)
    assert content.classifier is not None
    content = replace(content, classifier=replace(content.classifier, probabilities=probabilities))
    bundle = write_bundle(content, tmp_path / "bundle")
    write_callers(bundle, tmp_path / "examples", c_header=False)
    folder = tmp_path / "examples" / "host_onnxruntime_fp32_1"
    rows = "".join(f"  print_answer({{{', '.join(map(repr, row.tolist()))}}});\n" for row in OUTPUTS)
    (folder / "main.cc").write_text(f'#include "answer.h"\nint main() {{\n{rows}}}\n')
    compile_here(folder, "main.cc", "-o", "program")
    done = subprocess.run([folder / "program"], capture_output=True, text=True, check=True, timeout=60)
    document = json.loads((bundle / "manifest.json").read_text())["classifier"]
    for line, outputs in zip(done.stdout.splitlines(), OUTPUTS, strict=True):
        meaning = _meaning(outputs, document, 1)
        found = line.split("\t")
        if task.kind == "single-label":
            assert (int(found[0]), found[2]) == (meaning["index"], meaning["label"])
            assert float(found[1]) == pytest.approx(meaning["probability"], abs=1e-6)
            assert not probabilities or meaning["probability"] == outputs.max()
            continue
        wanted = meaning[{"multi-label": "probabilities", "regression": "values"}.get(task.kind, "embedding")]
        wanted = list(wanted.values()) if isinstance(wanted, dict) else wanted
        assert [float(each) for each in found] == pytest.approx(wanted, rel=1e-6, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("task", [MultiLabel(), Regression((1.0,) * 3, (2.0,) * 3), Embedding()])
def test_kotlin_answers_are_those_of_the_task(
    litert_content: BundleContent, tmp_path: Path, task: AnyTask
) -> None:
    bundle = write_bundle(with_task(litert_content, task), tmp_path / "bundle")
    files = write_callers(bundle, tmp_path / "examples", c_header=False).files
    answer = next(file for file in files if file.name == "Answer.kt").read_text()
    refuse_bad_kotlin(answer)
    functions = {"multi-label": "probabilities", "regression": "values", "embedding": "unit"}
    assert f"fun {functions[task.kind]}(" in answer
    constants = next(file for file in files if file.name == "ModelInfo.kt").read_text()
    refuse_bad_kotlin(constants)
    assert ("val OUTPUT_STD = floatArrayOf(2.0f, 2.0f, 2.0f)" in constants) is (task.kind == "regression")


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
    files = write_callers(bundle, tmp_path / "examples", c_header=False).files
    kotlin = [file for file in files if file.suffix == ".kt"]
    assert {file.parent.name for file in kotlin} == {"host_litert_fp32_1"}
    names = {"Answer.kt", "ImageModel.kt", "ModelInfo.kt", "Runner.kt", "Tensors.kt"}
    assert {file.name for file in kotlin} == names
    for file in kotlin:
        refuse_bad_kotlin(file.read_text())
    constants = next(file for file in kotlin if file.name == "ModelInfo.kt").read_text()
    assert "const val HEIGHT = 4\nconst val WIDTH = 4\nconst val CHANNELS = 1\n" in constants
    assert "val MEAN = floatArrayOf(0.4f)\nval STD = floatArrayOf(0.25f)\n" in constants
    assert 'val LABELS = listOf("top", "bottom", "neither, or <b>both</b>")' in constants


def test_a_runtime_without_an_example_has_the_bytes_of_its_model_only(
    bundle_content: BundleContent, tmp_path: Path
) -> None:
    bundle = write_bundle(with_program(bundle_content, tmp_path), tmp_path / "bundle")
    with pytest.raises(VerificationError, match="no example program"):
        write_callers(bundle, tmp_path / "examples", c_header=False)
    (header,) = write_callers(bundle, tmp_path / "examples", c_header=True).files
    assert header.name == "model_data.h"


def test_a_model_of_several_inputs_is_run_by_their_files(
    compiled_content: BundleContent, tmp_path: Path
) -> None:
    bundle = write_bundle(compiled_content, tmp_path / "bundle")
    files = write_callers(bundle, tmp_path / "examples", c_header=False).files
    assert {file.name for file in files} == {"model_info.h", "run.cc", "session.h", "tensors.h"}
    folder = files[0].parent
    np.array([1.5, -2], np.float32).tofile(folder / "left")
    np.array([1e-9, 7], np.float32).tofile(folder / "right")
    found = echoed(folder, "left", "right")
    assert found == {"difference": [1.5, -2], "size": [float(np.float32(1e-9)), 7]}
    program = [folder / "program", "model", folder / "left"]
    too_few = subprocess.run(program, capture_output=True, text=True, check=False)
    assert too_few.returncode == 2
    assert too_few.stderr.split()[2:] == ["MODEL", "left", "right"]
    (folder / "right").write_bytes(b"short")
    short = subprocess.run([*program, folder / "right"], capture_output=True, text=True, check=False)
    assert short.returncode == 1
    assert "right has not the 8 bytes" in short.stderr


INTEGERS = (
    TensorDescription(
        name="signed", shape=(1, 5), dtype="int8", quantisation=Quantisation(scale=0.5, zero_point=-3)
    ),
    TensorDescription(
        name="unsigned", shape=(5,), dtype="uint8", quantisation=Quantisation(scale=0.1, zero_point=128)
    ),
    TensorDescription(name="count", shape=(), dtype="int64"),
)


def test_integers_with_a_scale_take_and_give_real_numbers(
    compiled_content: BundleContent, tmp_path: Path
) -> None:
    bundle = write_bundle(compiled_content, tmp_path / "bundle")
    folder = write_callers(bundle, tmp_path / "examples", c_header=False).files[0].parent
    manifest = read_bundle(bundle)
    (entry,) = manifest.targets
    constants = _cpp_constants(
        manifest, entry, Target.parse(entry.target), (INTEGERS, INTEGERS), images=False
    )
    (folder / "model_info.h").write_text(constants)
    values = np.array([-200, -1.3, 0, 0.74, 200], np.float32)
    for each in INTEGERS[:2]:
        values.tofile(folder / each.name)
    np.array(-(2**40), np.int64).tofile(folder / "count")
    found = echoed(folder, "signed", "unsigned", "count")
    for each, (low, high) in zip(INTEGERS[:2], ((-128, 127), (0, 255)), strict=True):
        about = each.quantisation
        assert about is not None
        scale = np.float32(about.scale)
        stored = np.clip(np.round(values / scale) + about.zero_point, low, high)
        np.testing.assert_allclose(found[each.name], (stored - about.zero_point) * scale, rtol=1e-6)
    assert found["count"] == [-(2**40)]


def echoed(folder: Path, *files: str) -> dict[str, list[float]]:
    """What ``run.cc`` prints where the session gives its inputs back, by output."""
    (folder / "session.h").write_text(ECHO_SESSION)
    compile_here(folder, "run.cc", "-o", "program")
    program = [folder / "program", "model", *(folder / file for file in files)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return {name: [float(each) for each in numbers] for name, *numbers in rows}


def refuse_bad_kotlin(text: str) -> None:
    """Fail where the text is not in the grammar of Kotlin."""
    tree_sitter = pytest.importorskip("tree_sitter")
    tree_sitter_kotlin = pytest.importorskip("tree_sitter_kotlin")
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_kotlin.language()))
    root = parser.parse(text.encode()).root_node
    assert not root.has_error, text


def test_kotlin_has_scales_and_names_of_any_kind(compiled_content: BundleContent, tmp_path: Path) -> None:
    manifest = read_bundle(write_bundle(compiled_content, tmp_path / "bundle"))
    odd = INTEGERS[0].model_copy(update={"name": 'a "${name}"\n'})
    constants = _kotlin_constants(manifest, ((odd, INTEGERS[2]), INTEGERS), images=False)
    refuse_bad_kotlin(constants)
    assert "Type.INT8, intArrayOf(1, 5), 0.5f, -3)" in constants
    assert 'Tensor("count", Type.INT64, intArrayOf(), 0.0f, 0)' in constants
    with pytest.raises(AssertionError):
        refuse_bad_kotlin(constants.replace(")", "", 1))


@pytest.mark.parametrize(
    ("target", "delegate"),
    [("host/onnxruntime:fp32+cuda@1", "CUDAExecutionProvider"), ("host/onnxruntime:fp32+cores=0@1", None)],
)
def test_programs_that_run_elsewhere_than_the_model_was_measured_say_so(
    bundle_content: BundleContent, tmp_path: Path, target: str, delegate: str | None
) -> None:
    (given,) = bundle_content.targets
    elsewhere = replace(given, verdict=replace(given.verdict, target=target))
    bundle = write_bundle(replace(bundle_content, targets=(elsewhere,)), tmp_path / "bundle")
    written = write_callers(bundle, tmp_path / "examples", c_header=False)
    constants = next(file for file in written.files if file.name == "model_info.h").read_text()
    said = f"the model was measured on {delegate}, and the programs run it on the CPU"
    assert written.notes == (() if delegate is None else (f"{target}: {said}",))
    assert constants.startswith("// What the model takes" if delegate is None else f"// {said}\n")


def test_a_target_without_an_example_beside_one_with_is_named(
    bundle_content: BundleContent, tmp_path: Path
) -> None:
    (other,) = with_program(bundle_content, tmp_path).targets
    content = replace(bundle_content, targets=(*bundle_content.targets, other))
    written = write_callers(write_bundle(content, tmp_path / "bundle"), tmp_path / "examples", c_header=False)
    assert {file.parent.name for file in written.files} == {"host_onnxruntime_fp32_1"}
    assert len(written.notes) == 1
    assert written.notes[0].startswith("host/torch:fp32@1 has no program: there are examples for")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda outputs: (*outputs, outputs[0]), "it describes 3 outputs, and the artifact has 2"),
        (lambda outputs: outputs[:1], "it describes 1 outputs, and the artifact has 2"),
    ],
)
def test_a_bundle_that_describes_other_outputs_than_its_artifact_has_gets_no_examples(
    compiled_content: BundleContent,
    tmp_path: Path,
    change: Callable[[tuple[TensorDescription, ...]], tuple[TensorDescription, ...]],
    said: str,
) -> None:
    (target,) = compiled_content.targets
    wrong = replace(compiled_content, targets=(replace(target, outputs=change(target.outputs)),))
    bundle = write_bundle(wrong, tmp_path / "bundle")
    with pytest.raises(VerificationError, match=said):
        write_callers(bundle, tmp_path / "examples", c_header=True)
    assert not (tmp_path / "examples").exists()


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
        '#include "image.h"\nint main() { for (auto each : model::kLabels) std::fputs(each, stdout); }\n'
    )
    compile_here(folder, "main.cc", "-o", "program")
    done = subprocess.run([folder / "program"], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode() == "".join(odd.labels)
