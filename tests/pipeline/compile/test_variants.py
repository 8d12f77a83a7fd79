"""Which variant compiles for which target; the documented example of a new one is run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices.errors import TargetError
from devices.target import Target
from pipeline.compile import compile_artifact, variants
from pipeline.compile.variants import VARIANTS, CompileVariant, deciding_packages, variant_for
from pipeline.export.base import Format
from pipeline.stages.student.compile import compile_student

PAGE = Path(__file__).parents[3] / "docs" / "extending" / "compile-variants.md"


@pytest.fixture(autouse=True)
def _boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices with Python that are never asked anything."""
    table = 'connection = "ssh"\nhost = "nowhere"\n'
    definitions = "".join(f"[devices.{name}]\n{table}" for name in ("pi5", "phone", "other"))
    (tmp_path / "devices.toml").write_text(definitions)
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    weight = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    node = helper.make_node("MatMul", ["input", "w"], ["logits"], doc_string="from line 12 of a script")
    graph = helper.make_graph(
        [node],
        "student",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "student.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch) -> CompileVariant:
    (code,) = re.findall(
        r"^```python\n# pipeline/compile/as_exported.py\n(.*?)^```", PAGE.read_text(), re.M | re.S
    )
    names: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    variant = names["AS_EXPORTED"]
    assert isinstance(variant, CompileVariant)
    monkeypatch.setattr(variants, "VARIANTS", (variant, *VARIANTS))
    return variant


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Target("host", "onnxruntime"), "onnxruntime-this-cpu"),
        (Target("host", "onnxruntime", options=("cores=0",)), "onnxruntime-this-cpu"),
        (Target("host", "onnxruntime", options=("native",)), "onnxruntime-any-cpu"),
        (Target("host", "onnxruntime", options=("cuda",)), "onnxruntime-accelerator"),
        (Target("host", "onnxruntime", options=("native", "xnnpack")), "onnxruntime-accelerator"),
        (Target("pi5", "onnxruntime"), "onnxruntime-any-cpu"),
        (Target("pi5", "onnxruntime", options=("openvino",)), "onnxruntime-accelerator"),
        (Target("host", "litert"), "litert"),
        (Target("phone", "litert"), "litert"),
    ],
)
def test_every_target_that_students_are_made_for_has_a_variant(target: Target, name: str) -> None:
    assert variant_for(target).name == name


@pytest.mark.parametrize("target", [Target("host", "tensorrt"), Target("host", "litert", "int8")])
def test_a_target_without_students_has_none(target: Target) -> None:
    with pytest.raises(TargetError):
        variant_for(target)


def test_names_differ_and_the_page_lists_them() -> None:
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names)
    assert re.findall(r"^\| `([\w-]+)` \|", PAGE.read_text(), re.M) == names


def test_versions_of_every_variants_packages_are_in_the_key_of_the_stage() -> None:
    assert set(deciding_packages()) == {package for variant in VARIANTS for package in variant.packages}
    assert set(deciding_packages()) <= set(compile_student.packages)


def test_the_documented_variant_compiles_for_its_boards_only(documented: CompileVariant) -> None:
    assert variant_for(Target("pi5", "onnxruntime")) is documented
    assert variant_for(Target("other", "onnxruntime")).name == "onnxruntime-any-cpu"
    assert variant_for(Target("pi5", "litert")).format == Format.LITERT


def test_the_documented_variant_keeps_outputs_and_gives_the_same_bytes_again(
    documented: CompileVariant, exported: Path, tmp_path: Path
) -> None:
    target = Target("pi5", "onnxruntime")
    artifact = compile_artifact(exported, target, tmp_path / "once")
    again = compile_artifact(exported, target, tmp_path / "again")
    assert artifact.digest == again.digest
    assert artifact.notes == {"variant": documented.name, "graph_optimization": "none", "cpu": "any"}
    assert onnx.load(exported).graph.node[0].doc_string
    assert not onnx.load(artifact.path).graph.node[0].doc_string
    values = np.arange(4, dtype=np.float32)[None]
    before, after = (
        onnxruntime.InferenceSession(str(path)).run(None, {"input": values})[0]
        for path in (exported, artifact.path)
    )
    assert (before == after).all()
