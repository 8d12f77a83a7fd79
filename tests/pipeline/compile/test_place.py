"""Targets of which parts are left open."""

from __future__ import annotations

import pytest

from devices.errors import TargetError
from devices.target import Target
from pipeline.compile.place import Place, is_as_it_comes


@pytest.mark.parametrize(
    "text",
    [
        "host",
        "host@2",
        "host/litert",
        "host/onnxruntime:int8",
        "host/onnxruntime:int8+cores=0@2",
        "host/litert@1",
    ],
)
def test_a_place_is_written_as_it_is_read(text: str) -> None:
    assert str(Place.parse(text)) == text


def test_what_is_left_out_is_open() -> None:
    place = Place.parse("host/onnxruntime")
    assert (place.precision, place.threads) == (None, None)
    assert place.target("onnxruntime", "int8") == Target("host", "onnxruntime", "int8")
    assert Place.parse("host@2").target("litert", "fp32") == Target("host", "litert", "fp32", 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host/",
        "nowhere",
        "host/nothing",
        "host/onnxruntime:int4",
        "host+cores=0",
        "host/litert:bf16+x@1",
        "host@0",
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(TargetError):
        Place.parse(text)


def test_variants_are_of_the_runtime_and_precision_and_the_baseline_is_always_there() -> None:
    pytest.importorskip("onnxruntime")
    names = [variant.name for variant, _ in Place.parse("host/onnxruntime:int8@1").variants()]
    assert "onnxruntime:fp32" in names
    assert "onnxruntime:int8-u8s8-minmax" in names
    assert not any(name.startswith("litert") or name == "onnxruntime:fp32-optimised" for name in names)


def test_a_variant_that_is_unfit_says_why() -> None:
    pytest.importorskip("onnxruntime")
    whys = {variant.name: why for variant, why in Place.parse("host/onnxruntime").variants()}
    assert "conversions" in whys["onnxruntime:fp16"]
    assert whys["onnxruntime:fp32-optimised"] == ""


def test_the_identity_of_this_machine_names_processor_and_packages() -> None:
    pytest.importorskip("onnxruntime")
    identity = Place.parse("host/onnxruntime").identity(frozenset({"onnxruntime"}))
    assert identity["processor"]
    assert set(identity["packages"]) == {"onnxruntime"}


def test_one_variant_of_each_runtime_is_the_model_as_it_comes() -> None:
    pytest.importorskip("onnxruntime")
    names = [v.name for v, _ in Place.parse("host/onnxruntime").variants() if is_as_it_comes(v)]
    assert names == ["onnxruntime:fp32"]
