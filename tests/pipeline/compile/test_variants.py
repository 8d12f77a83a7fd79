"""Which variant compiles for which target; the documented example of a new one is run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import devices.added
from devices.errors import TargetError
from devices.target import Target
from pipeline.compile import CompileVariant, compile_artifact, find_variant, variants
from pipeline.compile.making import versions_of
from pipeline.compile.variants import VARIANTS, deciding_packages, default_variant, known_variants
from pipeline.errors import ExportError
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


def adding(monkeypatch: pytest.MonkeyPatch, added: object, dist: object = None) -> None:
    """As if another distribution named a variant."""

    class Entry:
        name = "theirs"

        def __init__(self) -> None:
            self.dist = dist

        def load(self) -> object:
            return added

    monkeypatch.setattr(
        devices.added, "entry_points", lambda group: [Entry()] * (group == variants.ENTRY_POINTS)
    )
    variants._added_variants.cache_clear()
    monkeypatch.setattr(variants, "_added_variants", variants._added_variants.__wrapped__)


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch) -> CompileVariant:
    (code,) = re.findall(r"^```python\n# as_exported.py\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    names: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    variant = names["AS_EXPORTED"]
    assert isinstance(variant, CompileVariant)
    adding(monkeypatch, variant)
    return variant


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Target("host", "onnxruntime"), "onnxruntime:fp32-optimised"),
        (Target("host", "onnxruntime", "int8"), "onnxruntime:int8-u8s8-minmax"),
        (Target("host", "litert", "int8"), "litert:int8-static"),
        (Target("host", "onnxruntime", options=("cores=0",)), "onnxruntime:fp32-optimised"),
        (Target("host", "onnxruntime", options=("native",)), "onnxruntime:fp32-optimised"),
        (Target("host", "onnxruntime", options=("cuda",)), "onnxruntime:fp32-optimised"),
        (Target("host", "onnxruntime", options=("native", "xnnpack")), "onnxruntime:fp32-optimised"),
        (Target("pi5", "onnxruntime"), "onnxruntime:fp32-optimised"),
        (Target("pi5", "onnxruntime", options=("openvino",)), "onnxruntime:fp32-optimised"),
        (Target("host", "litert"), "litert:fp32-tidied"),
        (Target("phone", "litert"), "litert:fp32-tidied"),
    ],
)
def test_every_target_that_students_are_made_for_has_a_variant(target: Target, name: str) -> None:
    assert default_variant(target).name == name


@pytest.mark.parametrize(
    ("target", "level"),
    [
        (Target("host", "onnxruntime"), "all"),
        (Target("host", "onnxruntime", options=("native",)), "extended"),
        (Target("host", "onnxruntime", options=("cuda",)), "basic"),
        (Target("pi5", "onnxruntime"), "extended"),
        (Target("pi5", "onnxruntime", options=("openvino",)), "basic"),
    ],
)
def test_a_graph_is_optimised_as_far_as_its_target_runs_it(target: Target, level: str) -> None:
    assert variants.onnxruntime._level(target) == level


@pytest.mark.parametrize(
    "target",
    [
        Target("host", "tensorrt", "fp16"),
        Target("host", "litert", "fp16"),
        Target("host", "onnxruntime", "int8", 1, ("cuda",)),
    ],
)
def test_a_target_without_lossless_variants_has_no_default(target: Target) -> None:
    with pytest.raises((TargetError, ExportError)):
        default_variant(target)


def test_the_versions_of_a_variant_name_the_distribution_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variant = replace(find_variant("onnxruntime:fp32"), how="theirs")
    adding(monkeypatch, variant, SimpleNamespace(name="theirs", version="1.2"))
    assert versions_of(variant)["theirs"] == "1.2"
    assert "theirs" not in versions_of(find_variant("onnxruntime:fp32"))


def test_names_differ_and_the_page_lists_them() -> None:
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names)
    assert re.findall(r"^\| `([\w:-]+)` \|", PAGE.read_text(), re.M) == names


def test_variants_that_stand_in_for_another_name_one_of_their_runtime() -> None:
    for variant in VARIANTS:
        if variant.instead_of:
            other = find_variant(variant.instead_of)
            assert (other.runtime, other.precision, other.instead_of) == (
                variant.runtime,
                variant.precision,
                "",
            )


def test_versions_of_every_variants_packages_are_in_the_key_of_the_stage() -> None:
    assert set(deciding_packages()) == {package for variant in VARIANTS for package in variant.packages}
    assert set(deciding_packages()) <= set(compile_student.packages)


def test_a_variant_of_another_distribution_is_known_and_never_the_default(documented: CompileVariant) -> None:
    assert documented in known_variants()
    assert find_variant(documented.name) is documented
    assert default_variant(Target("pi5", "onnxruntime")).name == "onnxruntime:fp32-optimised"
    assert documented.unfit(Target("other", "onnxruntime"))
    assert not documented.unfit(Target("pi5", "onnxruntime"))


@pytest.mark.parametrize("added", ["no variant", find_variant("litert:fp32")])
def test_what_another_distribution_adds_is_refused_if_it_is_no_variant_or_its_name_is_taken(
    added: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    adding(monkeypatch, added)
    with pytest.raises(ExportError, match="'theirs' of a distribution cannot be used"):
        known_variants()


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ExportError, match="no compile variant 'onnxruntime:int4'") as caught:
        find_variant("onnxruntime:int4")
    assert "litert:int8-static" in caught.value.why


def test_the_documented_variant_keeps_outputs_and_gives_the_same_bytes_again(
    documented: CompileVariant, exported: Path, tmp_path: Path
) -> None:
    target = Target("pi5", "onnxruntime")
    artifact, again = (
        compile_artifact(exported, target, tmp_path / name, documented) for name in ("once", "again")
    )
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


@pytest.mark.parametrize(("device", "told"), [("host", True), ("another-python", True), ("pi5", False)])
def test_the_processor_of_this_machine_decides_for_every_device_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, told: bool
) -> None:
    with (tmp_path / "devices.toml").open("a") as stream:
        stream.write('[devices.another-python]\nconnection = "local"\npython = "python3"\n')
    monkeypatch.setattr(variants.openvino, "computes_in", lambda precision: False)
    monkeypatch.setattr(variants.onnxruntime, "has_dot_products", lambda: True)
    unfit = [
        find_variant(name).unfit(Target(device, name.partition(":")[0], name.partition(":")[2][:4]))
        for name in ("openvino:fp16", "onnxruntime:int8-u8s8-reduced")
    ]
    assert [bool(why) for why in unfit] == [told, told]
