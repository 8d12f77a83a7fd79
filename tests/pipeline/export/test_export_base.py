"""Formats and workload identities."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.errors import TargetError
from devices.target import Target
from pipeline.errors import ExportError
from pipeline.export.base import Format, block_workload, exporter_versions, format_of, network_workload
from pipeline.spaces.base import Architecture, Block

BLOCK = Block("mbconv", (8, 16, 16), (("expansion", 3), ("kernel", 5)))
formats = st.sampled_from(Format)
blocks = st.builds(
    Block,
    st.sampled_from(["stem", "mbconv"]),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=2).map(tuple),
)


def test_format_of_follows_the_runtime():
    assert format_of(Target.parse("host/onnxruntime:fp32@1")) is Format.ONNX
    assert format_of(Target.parse("host/litert:fp32@4")) is Format.LITERT


def test_format_of_names_the_known_runtimes_when_the_runtime_is_another():
    with pytest.raises(TargetError, match="tensorrt") as caught:
        format_of(Target.parse("orin/tensorrt:fp16"))
    assert "onnxruntime" in caught.value.why


def test_a_format_knows_its_suffix_and_layout():
    assert (Format.ONNX.suffix, Format.ONNX.layout) == (".onnx", "NCHW")
    assert (Format.LITERT.suffix, Format.LITERT.layout) == (".tflite", "NHWC")


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
    with pytest.raises(ExportError) as caught:
        exporter_versions(Format.LITERT)
    assert "lathe-deploy[litert]" in caught.value.fix


def test_exporter_versions_leave_the_build_suffix_out():
    assert all("+" not in version for version in exporter_versions(Format.ONNX).values())


def test_importing_base_loads_neither_torch_nor_an_exporter():
    heavy = {"torch", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert"}
    program = f"import sys, pipeline.export.base, pipeline.compile; print(sorted({heavy} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
