"""Small finished models as files, and rounds whose times are made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from devices.measuring import Entrant, Round
from tests.devices.made_up import made_up_launch

Shape = Sequence[int | str]


def save_classifier(
    path: Path,
    shape: Shape = (1, 3, 8, 8),
    classes: int = 4,
    *,
    odd_operator: str = "",
    seed: int = 0,
    input_name: str = "image",
) -> Path:
    """A convolution, ReLU, mean and a matrix product: an ONNX file."""
    random = np.random.default_rng(seed)
    weights = {
        "w": random.standard_normal((6, 3, 3, 3), dtype=np.float32) / 3,
        "b": random.standard_normal(6, dtype=np.float32) / 9,
        "v": random.standard_normal((6, classes), dtype=np.float32),
    }
    nodes = [
        helper.make_node("Conv", [input_name, "w", "b"], ["c"], pads=[1, 1, 1, 1], name="first"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["scores"]),
    ]
    domains = [helper.make_opsetid("", 17)]
    if odd_operator:
        nodes[1] = helper.make_node(odd_operator, ["c"], ["r"], domain="made.up")
        domains.append(helper.make_opsetid("made.up", 1))
    return save(
        path,
        nodes,
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], classes])],
        weights,
        domains,
    )


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, np.ndarray],
    domains: Sequence[onnx.OperatorSetIdProto] = (),
) -> Path:
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "made up", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=domains or [helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def made_up_rounds(
    times_us: Mapping[str, float], *, otherwise_us: float = 100.0, told: list[list[str]] | None = None
) -> Callable[..., Round]:
    """In place of ``measure_round``: each variant takes its time, by its name without threads."""

    def measure(
        entrants: Sequence[Entrant],
        protocol: object,
        number: int,
        connection: object,
        *,
        on_timed: Callable[[], None] = lambda: None,
    ) -> Round:
        if told is not None:
            told.append([each.name for each in entrants])
        launches = {}
        for each in entrants:
            time_us = times_us.get(each.name, otherwise_us)
            launches[each.name] = made_up_launch([round(1000 * time_us) + number] * 20)
            on_timed()
        return Round(launches)

    return measure
