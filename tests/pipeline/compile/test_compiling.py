"""A finished model is compiled by measurement: made and compared for real, with times that are made up."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from devices.errors import LatheError, MeasurementError
from devices.measuring import LAUNCHES
from pipeline.compile import (
    CompileVariant,
    Fate,
    ModelFormat,
    Objective,
    Place,
    Rules,
    find_variant,
    race,
    sensitivity,
)
from pipeline.errors import ExportError
from tests.pipeline.compile.compiling import (
    BASE,
    CLEANED,
    FEW,
    INT8,
    OPTIMISED,
    RUNTIME,
    compiled,
    only,
    timed,
)
from tests.pipeline.compile.finished_models import made_up_rounds, save, save_classifier

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_variants")]


def save_pt2(path: Path) -> Path:
    layers = (nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    torch.export.save(torch.export.export(nn.Sequential(*layers).eval(), (torch.zeros(1, 3, 8, 8),)), path)
    return path


def test_without_data_only_lossless_variants_are_tried_and_that_is_said(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, fp32=100, fp32_optimised=90)
    raced = only(compiled(model, tmp_path))
    assert raced.chosen == OPTIMISED
    assert raced.row(INT8).fate is Fate.LEFT_OUT
    assert "no data" in raced.row(INT8).why
    assert "--force" in raced.row(INT8).why
    assert "0.90x" in raced.reason
    assert "same outputs" in raced.reason


def test_forced_without_data_lossy_variants_are_calibrated_with_random_inputs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, fp32=100, int8_u8s8_minmax=30)
    found = compiled(model, tmp_path, rules=Rules(forced=True))
    assert found.samples.random
    assert only(found).chosen == INT8


def test_the_fastest_that_keeps_the_accuracy_is_chosen_and_losers_are_stopped(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = timed(monkeypatch, fp32=100, fp32_optimised=95, int8_u8s8_minmax=60)
    raced = only(compiled(model, tmp_path, data, rules=Rules(max_drop=100)))
    chosen, stopped, baseline = (raced.row(name) for name in (INT8, OPTIMISED, BASE))
    assert raced.chosen == INT8
    assert raced.rows[0] is baseline
    assert chosen.fate is baseline.fate is Fate.MEASURED
    assert chosen.ratio is not None
    assert chosen.ratio.value == pytest.approx(0.6, abs=0.001)
    assert chosen.rounds == baseline.rounds == LAUNCHES
    assert (stopped.fate, stopped.rounds) == (Fate.STOPPED, 1)
    assert f"after 1 round at 1.58x {INT8}" in stopped.why
    # What computes as another does joins when that one is known.
    assert set(told[0]) == {BASE, INT8}
    assert set(told[1]) == {BASE, OPTIMISED, INT8}
    assert set(told[2]) == {BASE, INT8}
    assert chosen.quality is not None
    assert chosen.quality.accuracy is not None
    assert chosen.quality.reference_accuracy == 1
    assert chosen.quality.samples == 100
    assert raced.row(f"{RUNTIME}int8-u8s8-percentile").why.startswith(f"tried only if {INT8}")
    assert chosen.size_bytes is not None


class _Spoilt:
    """What a variant does, and then the file is another model's, which gives other classes."""

    def __init__(self, variant: CompileVariant, other: Path) -> None:
        self._make, self._other = variant.make, other

    def __call__(self, task: Any, path: Path) -> Any:
        return self._make(replace(task, model=self._other, shared=None), path)


def spoilt(monkeypatch: pytest.MonkeyPatch, other: Path, *names: str) -> None:
    """Make these variants lose accuracy."""
    changed = {
        name: replace(find_variant(name), make=_Spoilt(find_variant(name), other)) if name in names else None
        for name in FEW
    }
    known = tuple(changed[name] or find_variant(name) for name in FEW)
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: known)
    monkeypatch.setattr("pipeline.compile.making.find_variant", {each.name: each for each in known}.get)


def test_a_variant_that_loses_too_much_is_rejected_and_others_stand_in_for_it(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, fp32=100, fp32_optimised=95, int8_u8s8_minmax=20, int8_u8s8_mixed10=40)
    other = save_classifier(tmp_path / "other.onnx", seed=5)
    spoilt(monkeypatch, other, INT8, f"{RUNTIME}int8-u8s8-percentile")
    raced = only(compiled(model, tmp_path, data, rules=Rules(max_drop=15)))
    rejected, sibling = raced.row(INT8), raced.row(f"{RUNTIME}int8-u8s8-percentile")
    assert (rejected.fate, sibling.fate) == (Fate.REJECTED, Fate.REJECTED)
    assert "points of accuracy, more than 15" in rejected.why
    mixed = raced.row(f"{RUNTIME}int8-u8s8-mixed10")
    assert mixed.fate is Fate.MEASURED
    assert mixed.notes["in_float"] in ("Conv_0", "MatMul_4", "MatMul_3", "Gemm_4")
    assert raced.chosen == mixed.name


def test_runtimes_that_may_not_be_chosen_are_left_out(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, fp32=100)
    known = (find_variant(BASE), find_variant("openvino:fp32"))
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: known)
    places = (Place.parse("host@1"),)
    raced = only(compiled(model, tmp_path, places=places, runtimes=frozenset({"onnxruntime"})))
    assert raced.chosen == BASE
    row = raced.row("openvino:fp32")
    assert (row.fate, row.why) == (Fate.LEFT_OUT, "a bundle has no inference script for openvino")
    with pytest.raises(ExportError, match="nothing compiles net for host/onnxruntime@1") as caught:
        compiled(model, tmp_path, runtimes=frozenset({"litert"}))
    assert caught.value.why == "a bundle has no inference script for onnxruntime"


def test_an_operator_that_the_runtime_lacks_is_named(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "net.onnx", odd_operator="Sparkle")
    with pytest.raises(LatheError) as caught:
        compiled(model, tmp_path)
    assert "Sparkle" in str(caught.value)
    assert isinstance(caught.value, ExportError | MeasurementError)


def test_a_budget_that_nothing_keeps_leaves_nothing_chosen(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, fp32=100, fp32_optimised=90)
    raced = only(compiled(model, tmp_path, rules=Rules(budget_ms=0.05)))
    assert raced.chosen is None
    assert raced.keeps_budget is False
    assert "no variant keeps 0.05 ms: the fastest, onnxruntime:fp32-optimised, takes 0.09" in raced.reason
    kept = only(compiled(model, tmp_path, rules=Rules(budget_ms=0.1)))
    assert kept.chosen == OPTIMISED
    assert kept.keeps_budget


def test_the_smallest_is_chosen_where_size_is_wanted(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, fp32=100, fp32_optimised=50, int8_u8s8_minmax=300)
    raced = only(compiled(model, tmp_path, data, rules=Rules(Objective.SIZE, max_drop=100)))
    sizes = {row.name: row.size_bytes for row in raced.rows if row.size_bytes}
    assert raced.chosen == min(sizes, key=lambda name: sizes[name] or 0)
    assert "smallest" in raced.reason


def test_more_threads_are_tried_where_they_are_open(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (core, *_) = os.sched_getaffinity(0)
    monkeypatch.setattr(race._Race, "_cores_offered", lambda self: [core, core])
    timed(monkeypatch, **{"fp32": 100, "fp32_optimised": 80, "fp32_optimised@2": 40})
    raced = only(compiled(model, tmp_path, places=(Place.parse("host/onnxruntime"),)))
    assert raced.chosen == f"{OPTIMISED}@2"
    assert raced.row(raced.chosen).target == "host/onnxruntime:fp32@2"
    pinned = raced.row(f"{OPTIMISED}+cores={core}")
    assert pinned.target == f"host/onnxruntime:fp32+cores={core}@1"
    assert pinned.fate is Fate.STOPPED


@pytest.mark.parametrize(
    ("device", "cores"), [("host", [3, 5]), ("another-python", [3, 5]), ("board", [0, 1, 2, 3])]
)
def test_of_this_machine_only_cores_that_may_be_used_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, cores: list[int]
) -> None:
    known = tmp_path / "devices.toml"
    known.write_text(
        '[devices.another-python]\nconnection = "local"\npython = "python3"\n'
        '[devices.board]\nconnection = "ssh"\nhost = "board.invalid"\n'
    )
    monkeypatch.setenv("LATHE_DEVICES", str(known))
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {5, 3})
    asked = SimpleNamespace(_given=SimpleNamespace(place=Place(device)), _cores=4)
    assert list(race._Race._cores_offered(asked)) == cores  # type: ignore[arg-type]


def test_a_program_is_compared_with_itself_where_no_other_format_of_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = find_variant("torch:fp32")
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: (variant,))
    monkeypatch.setattr("pipeline.compile.race.measure_round", made_up_rounds({variant.name: 100}))
    raced = only(compiled(save_pt2(tmp_path / "net.pt2"), tmp_path, places=(Place.parse("host/torch@1"),)))
    assert raced.chosen == variant.name
    quality = raced.row(variant.name).quality
    assert quality is not None
    assert quality.max_abs == 0


def test_a_model_that_itself_gives_no_numbers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, fp32=100)
    entry, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    logarithm = save(tmp_path / "log.onnx", [helper.make_node("Log", ["x"], ["y"])], [entry], [result], {})
    with pytest.raises(ExportError, match="itself gives inf or NaN"):
        compiled(logarithm, tmp_path)


def test_a_sensitivity_that_cannot_be_measured_leaves_out_only_what_needs_it(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_long(task: object) -> None:
        raise ExportError("it cannot be quantised", why="it did not end")

    monkeypatch.setitem(sensitivity.FINDERS, ModelFormat.ONNX, (too_long, ()))
    timed(monkeypatch, fp32=100, fp32_optimised=90, int8_u8s8_minmax=20)
    other = save_classifier(tmp_path / "other.onnx", seed=5)
    spoilt(monkeypatch, other, INT8, f"{RUNTIME}int8-u8s8-percentile")
    raced = only(compiled(model, tmp_path, data, rules=Rules(max_drop=15)))
    assert raced.row(INT8).fate is Fate.REJECTED
    mixed = raced.row(f"{RUNTIME}int8-u8s8-mixed10")
    assert (mixed.fate, mixed.why) == (Fate.LEFT_OUT, "it cannot be quantised: it did not end")
    assert raced.chosen == OPTIMISED


def save_of_two(path: Path) -> Path:
    """A picture and two numbers to scores and to what they are made of."""
    entries = [
        helper.make_tensor_value_info("zoom", TensorProto.FLOAT, [1, 2]),
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8]),
    ]
    results = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 8]),
    ]
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((6, 3, 3, 3), dtype=np.float32) / 3,
        "v": random.standard_normal((8, 4), dtype=np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Concat", ["zoom", "f"], ["features"], axis=1),
        helper.make_node("MatMul", ["features", "v"], ["scores"]),
    ]
    return save(path, nodes, entries, results, weights)


def test_a_model_of_several_inputs_and_outputs_is_calibrated_and_compared_by_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, random = save_of_two(tmp_path / "net.onnx"), np.random.default_rng(1)
    data = tmp_path / "data.npz"
    image, zoom = (random.standard_normal((60, *shape), dtype=np.float32) for shape in ((3, 8, 8), (2,)))
    session = onnxruntime.InferenceSession(model)
    rows = [session.run(None, {"image": i[None], "zoom": z[None]}) for i, z in zip(image, zoom, strict=True)]
    labels = np.array([row[0].argmax() for row in rows])
    np.savez(data, image=image, zoom=zoom, labels=labels)
    names = (BASE, OPTIMISED, CLEANED, INT8, f"{RUNTIME}int8-dynamic", f"{RUNTIME}int8-weights")
    known = tuple(find_variant(name) for name in (*names, "openvino:fp32", "openvino:int8-symmetric"))
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: known)
    monkeypatch.setattr("pipeline.compile.race.measure_round", made_up_rounds({}))
    place, rules = Place.parse("host@1"), Rules(max_drop=100)
    found = compiled(model, tmp_path, data, places=(place,), rules=rules)
    raced = only(found)
    assert {row.name for row in raced.rows if row.fate is Fate.MEASURED} == {each.name for each in known}
    for row in raced.rows:
        assert row.quality is not None
        assert row.quality.reference_accuracy == 1
        assert row.quality.max_rel is not None
        assert row.quality.max_rel <= (1e-5 if row.lossless else 1)
        # Inputs or outputs in another order would give one class in four.
        assert row.quality.accuracy is not None
        assert row.quality.accuracy >= 0.8
    assert raced.row(INT8).quality != raced.row(BASE).quality


def test_what_is_a_little_slower_is_stopped_after_more_rounds(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {BASE: 100, OPTIMISED: 80, CLEANED: 96}
    known = tuple(find_variant(name) for name in times)
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: known)
    monkeypatch.setattr("pipeline.compile.race.measure_round", made_up_rounds(times))
    slower = only(compiled(model, tmp_path)).row(CLEANED)
    assert slower.fate is Fate.STOPPED
    assert 1 < slower.rounds < LAUNCHES


@pytest.mark.parametrize(("like_us", "made"), [(60, True), (90, False)])
def test_a_dear_variant_is_judged_by_the_one_whose_kernels_it_has(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, like_us: float, *, made: bool
) -> None:
    dear = replace(find_variant(CLEANED), dear=True, like=BASE)
    known = (find_variant(BASE), dear, replace(find_variant(OPTIMISED), like=""))
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: known)
    timed(monkeypatch, fp32=like_us, fp32_cleaned=20, fp32_optimised=40)
    raced = only(compiled(model, tmp_path, places=(Place.parse("host@1"),)))
    assert (raced.chosen == CLEANED) is made
    assert made or f"{BASE}, whose kernels it has, is at 2.25x {OPTIMISED}" in raced.row(CLEANED).why


def test_what_computes_as_another_that_is_far_behind_is_not_made_unless_size_is_wanted(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, fp32=100, fp32_optimised=90, int8_u8s8_minmax=30)
    raced = only(compiled(model, tmp_path, data, rules=Rules(max_drop=100)))
    row = raced.row(OPTIMISED)
    assert (row.fate, row.file) == (Fate.LEFT_OUT, None)
    assert row.why == f"not made: {BASE}, whose kernels it has, is at 3.33x {INT8}"
    small = only(compiled(model, tmp_path, data, rules=Rules(Objective.SIZE, max_drop=100)))
    assert small.row(OPTIMISED).file is not None


@pytest.mark.parametrize(("int8_us", "made"), [(60, True), (30, False)])
def test_a_dear_variant_is_made_only_where_another_of_its_precision_is_near_the_leader(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8_us: float, *, made: bool
) -> None:
    dear = replace(find_variant(CLEANED), dear=True, like="")
    known = (find_variant(BASE), dear, find_variant(INT8))
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: known)
    told = timed(monkeypatch, fp32=100, fp32_cleaned=20, int8_u8s8_minmax=int8_us)
    place, rules = Place.parse("host@1"), Rules(max_drop=100)
    raced = only(compiled(model, tmp_path, data, places=(place,), rules=rules))
    assert CLEANED not in told[0]
    row = raced.row(CLEANED)
    if made:
        assert raced.chosen == CLEANED
        assert row.rounds == LAUNCHES
    else:
        assert raced.chosen == INT8
        assert row.fate is Fate.LEFT_OUT
        assert f"{BASE}, the fastest in fp32, is at 3.33x {INT8}" in row.why
    # Who asks for one runtime gets all of it, and so does who has no other.
    work = tmp_path / "of-one-runtime"
    work.mkdir()
    assert only(compiled(model, work, data, rules=rules)).chosen == CLEANED
    alone = replace(find_variant(BASE), dear=True)
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: (alone, dear))
    assert only(compiled(model, work, places=(place,))).chosen == CLEANED


def test_fp16_that_overflows_is_rejected_and_that_is_said(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the hardware computes in fp16, large activations become infinite; here a division does that.
    name = f"{RUNTIME}fp16"
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["g"]),
        helper.make_node("Div", ["g", "zero"], ["beyond"]),
        helper.make_node("Flatten", ["beyond"], ["flat"]),
        helper.make_node("MatMul", ["flat", "v"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4])
    weights = {"zero": np.float32([0]), "v": np.ones((3, 4), np.float32)}
    endless = save(tmp_path / "endless.onnx", nodes, [image], [scores], weights)
    base, half = find_variant(BASE), find_variant(name)
    half = replace(half, make=_Spoilt(base, endless), unfit=lambda target: "")
    known = {BASE: base, name: half}
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: tuple(known.values()))
    monkeypatch.setattr("pipeline.compile.making.find_variant", known.get)
    timed(monkeypatch, fp32=100, fp16=30)
    raced = only(compiled(model, tmp_path, data))
    row = raced.row(name)
    assert (row.fate, row.why) == (Fate.REJECTED, "its outputs are inf or NaN, as fp16 overflows at 65504")
    assert raced.chosen == BASE
