"""Formats and workload identities."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.errors import TargetError
from devices.installing import how_to_install
from devices.target import Target
from pipeline.errors import ExportError
from pipeline.export.base import (
    Format,
    block_workload,
    exporter_identity,
    exporter_versions,
    format_of,
    installed_version,
    network_workload,
)
from pipeline.spaces.base import Architecture, Block


@pytest.fixture(autouse=True)
def _versions_read_anew():
    yield
    installed_version.cache_clear()


BLOCK = Block("mbconv", (8, 16, 16), (("expansion", 3), ("kernel", 5)))
NETWORK = ({"space": "s", "classes": 10}, Architecture((("width", 8),)))
# Of BLOCK and NETWORK with every package of version 1.0. Measurements are stored under such digests: one that
# changes here makes every stored one of its format be measured again.
PINNED = {
    Format.ONNX: (
        "2c1435771ee0fefb61383b9ca3958480115a9fa4f41179fa41205fdcfc9e8708",
        "bb655b73ba5864ed2ed2be0395994cc62ca442c27f21eb856fd6bbdb08cf2171",
    ),
    Format.LITERT: (
        "2585d26b3466015b176f4cecacc78cba268edcbc988fe44219254fb1175ed120",
        "a0d8fe1a48f42458cf722ef5fe6f267d04afd48b54bab67bc5d3fcd01ba18ec6",
    ),
    Format.ONNX_INT8: (
        "46bc28d54918c238050a70a15f0574f457272a19ac892723c265509ad4925447",
        "4daa844d6305e2fe3fc19b257aac2daa90c4c7ced59ba379575952dd1ad2197d",
    ),
    Format.LITERT_INT8: (
        "d75382ee41d140ff04e8a7805a2387dea47d47275855136cc12b928729659b53",
        "e4130409d5321e2571e7e6daf79f7131df9d2dcd38bfc9c7874b0f8bd5b48716",
    ),
}
formats = st.sampled_from(Format)
blocks = st.builds(
    Block,
    st.sampled_from(["stem", "mbconv"]),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=2).map(tuple),
)


def test_format_of_follows_the_runtime_and_the_precision():
    assert format_of(Target.parse("host/onnxruntime:fp32@1")) is Format.ONNX
    assert format_of(Target.parse("host/litert:fp32@4")) is Format.LITERT
    assert format_of(Target.parse("host/onnxruntime:int8@2")) is Format.ONNX_INT8
    assert format_of(Target.parse("pi5/litert:int8+cores=2-3@2")) is Format.LITERT_INT8


@given(formats)
def test_a_format_is_found_by_its_text(fmt):
    assert Format(str(fmt)) is fmt
    assert format_of(Target("host", fmt.runtime, fmt.precision)) is fmt


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_format_of_names_the_precisions_that_are_exported_when_it_is_another(precision):
    with pytest.raises(TargetError, match=precision) as caught:
        format_of(Target.parse(f"host/litert:{precision}"))
    assert "fp32 and int8" in caught.value.why
    assert "lathe profile" in caught.value.why


@given(formats)
def test_every_format_has_one_of_its_runtime_in_float(fmt):
    assert (fmt.in_float.runtime, fmt.in_float.precision) == (fmt.runtime, "fp32")


def test_format_of_names_the_known_runtimes_when_the_runtime_is_another():
    with pytest.raises(TargetError, match="tensorrt") as caught:
        format_of(Target.parse("orin/tensorrt:fp16"))
    assert "onnxruntime" in caught.value.why


def test_a_format_knows_its_suffix_and_layout():
    assert (Format.ONNX.suffix, Format.ONNX.layout) == (".onnx", "NCHW")
    assert (Format.LITERT.suffix, Format.LITERT.layout) == (".tflite", "NHWC")
    assert (Format.ONNX_INT8.suffix, Format.ONNX_INT8.layout) == (".onnx", "NCHW")
    assert (Format.LITERT_INT8.suffix, Format.LITERT_INT8.layout) == (".tflite", "NHWC")


@pytest.mark.parametrize("fmt", Format, ids=str)
def test_workloads_keep_the_digests_under_which_measurements_are_stored(fmt, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")
    installed_version.cache_clear()
    assert (block_workload(BLOCK, fmt).identity, network_workload(*NETWORK, fmt).identity) == PINNED[fmt]


@pytest.mark.parametrize(
    ("fmt", "quantiser"), [(Format.ONNX_INT8, "onnxruntime"), (Format.LITERT_INT8, "ai-edge-quantizer")]
)
def test_a_workload_in_int8_changes_with_the_quantiser(fmt, quantiser, monkeypatch):
    identity, before = exporter_identity(fmt), block_workload(BLOCK, fmt)
    assert identity["precision"] == "int8"
    assert quantiser in exporter_versions(fmt)
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99" if name == quantiser else version(name))
    installed_version.cache_clear()
    assert block_workload(BLOCK, fmt) != before


@given(blocks, blocks, formats, formats)
def test_block_workload_is_equal_exactly_when_block_and_format_are(one, other, one_format, other_format):
    same = block_workload(one, one_format) == block_workload(other, other_format)
    assert same == ((one, one_format) == (other, other_format))


def test_block_workload_is_a_readable_block():
    workload = block_workload(BLOCK, Format.ONNX)
    assert workload.kind == "block"
    assert workload.description == "mbconv 8x16x16 expansion=3 kernel=5"


def test_block_workload_changes_when_the_exporter_has_another_version(monkeypatch):
    before = block_workload(BLOCK, Format.ONNX)
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99" if name == "onnxscript" else version(name))
    installed_version.cache_clear()
    assert block_workload(BLOCK, Format.ONNX) != before


def test_network_workload_depends_on_space_architecture_and_format():
    small, large = Architecture((("width", 8),)), Architecture((("width", 16),))
    workloads = [
        network_workload({"space": "s", "classes": 10}, small, Format.ONNX),
        network_workload({"space": "s", "classes": 11}, small, Format.ONNX),
        network_workload({"space": "s", "classes": 10}, large, Format.ONNX),
        network_workload({"space": "s", "classes": 10}, small, Format.LITERT),
    ]
    assert len({workload.identity for workload in workloads}) == 4
    assert all(workload.kind == "network" for workload in workloads)
    assert network_workload({"classes": 10, "space": "s"}, small, Format.ONNX) == workloads[0]


def test_exporter_versions_name_the_extra_when_a_package_is_missing(monkeypatch):
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    installed_version.cache_clear()
    with pytest.raises(ExportError) as caught:
        exporter_versions(Format.LITERT)
    assert caught.value.fix == how_to_install("litert")


def test_exporter_versions_leave_the_build_suffix_out():
    assert all("+" not in version for version in exporter_versions(Format.ONNX).values())


def test_importing_base_loads_neither_torch_nor_an_exporter():
    heavy = {"torch", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert"}
    program = f"import sys, pipeline.export.base, pipeline.compile; print(sorted({heavy} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
