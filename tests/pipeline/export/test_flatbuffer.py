"""A LiteRT file is read if it unpacks to what it holds, and refused at once if its offsets multiply that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ExportError
from pipeline.export import flatbuffer
from tests.devices.tiny_models import write_open_tflite, write_tiny_tflite, write_two_signatures_tflite

flatbuffers = pytest.importorskip("flatbuffers")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

COUNT = 2_000


def several(builder: Any, start: Callable[[Any, int], Any], table: int) -> int:
    """A vector of references to one table."""
    start(builder, COUNT)
    for _ in range(COUNT):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())


def with_operators(builder: Any, operator: int) -> int:
    operators = several(builder, schema.SubGraphStartOperatorsVector, operator)
    schema.SubGraphStart(builder)
    schema.SubGraphAddOperators(builder, operators)
    return int(schema.SubGraphEnd(builder))


def finished(builder: Any, graphs: int) -> bytes:
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def operators_of_operators() -> bytes:
    """A graph of one operator many times, many times."""
    builder = flatbuffers.Builder(1024)
    schema.OperatorStart(builder)
    graph = with_operators(builder, schema.OperatorEnd(builder))
    return finished(builder, several(builder, schema.ModelStartSubgraphsVector, graph))


def one_long_name() -> bytes:
    """Tensors that are one tensor, each with a copy of its name."""
    builder = flatbuffers.Builder(1024)
    name = builder.CreateString("n" * 1_000_000)
    schema.TensorStart(builder)
    schema.TensorAddName(builder, name)
    tensors = several(builder, schema.SubGraphStartTensorsVector, schema.TensorEnd(builder))
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    return finished(builder, builder.EndVector())


def one_long_name_in_options() -> bytes:
    """The same where the name is in what one of several kinds of options has."""
    builder = flatbuffers.Builder(1024)
    name = builder.CreateString("n" * 1_000_000)
    schema.StableHLOCompositeOptionsStart(builder)
    schema.StableHLOCompositeOptionsAddName(builder, name)
    options = schema.StableHLOCompositeOptionsEnd(builder)
    schema.OperatorStart(builder)
    schema.OperatorAddBuiltinOptions2Type(builder, schema.BuiltinOptions2.StableHLOCompositeOptions)
    schema.OperatorAddBuiltinOptions2(builder, options)
    graph = with_operators(builder, schema.OperatorEnd(builder))
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    return finished(builder, builder.EndVector())


def one_long_vector() -> bytes:
    """Operators that have the same million inputs."""
    builder = flatbuffers.Builder(1024)
    schema.OperatorStartInputsVector(builder, 1_000_000)
    for _ in range(1_000_000 // 1000):
        builder.Pad(4_000)
    inputs = builder.EndVector()
    schema.OperatorStart(builder)
    schema.OperatorAddInputs(builder, inputs)
    graph = with_operators(builder, schema.OperatorEnd(builder))
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    return finished(builder, builder.EndVector())


@pytest.mark.parametrize(
    "bomb", [operators_of_operators, one_long_name, one_long_name_in_options, one_long_vector]
)
def test_a_file_whose_offsets_lead_to_the_same_bytes_again_and_again_is_refused_before_it_is_unpacked(
    bomb: Callable[[], bytes],
) -> None:
    with pytest.raises(ExportError, match="not a whole LiteRT model") as caught:
        flatbuffer.read(bomb())
    assert "its offsets lead to the same bytes so often" in caught.value.why


def test_a_file_of_more_tables_than_any_network_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write_tiny_tflite(tmp_path / "tiny.tflite").read_bytes()
    flatbuffer.read(content)
    monkeypatch.setattr(flatbuffer, "MOST_TABLES", 9)
    with pytest.raises(ExportError) as caught:
        flatbuffer.read(content)
    assert caught.value.why == "it unpacks to more than 9 tables"


@pytest.mark.parametrize("write", [write_tiny_tflite, write_open_tflite, write_two_signatures_tflite])
def test_small_files_of_every_kind_are_read(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    model = flatbuffer.read(write(tmp_path / "model.tflite").read_bytes())
    assert flatbuffer.operator_names(model) == ["FULLY_CONNECTED"]
    assert flatbuffer.read(flatbuffer.write(model)).subgraphs[0].tensors[0].shape[-1] > 0
