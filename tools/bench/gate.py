"""How often a gate of 3 % calls a regression: 40 comparisons of a file with itself, 40 with a slower one.

python tools/bench/gate.py WORK [COMPARISONS]

The slower network has one block more, so that its latency is about 5 % higher; the document has what was
measured of that over all comparisons. The comparisons are those of ``lathe gate --against``, in random order.
Each is kept in WORK/gate.json as soon as it is done, and the same call goes on from there. On a machine that
others load, many comparisons show what is claimed for the interleaved launches.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

from devices.measurement import MeasuringProtocol, quantile
from devices.measuring import ratio_against_limit
from devices.target import Target
from pipeline.work.disk import write_atomically

TARGET = Target.parse("host/onnxruntime:fp32@1")
LIMIT = 1.03
BLOCKS = 18
KINDS = ("same", "slower")


def write_network(path: Path, blocks: int) -> Path:
    """Equal convolutions one after another, on 24 channels of 28x28."""
    generator = np.random.default_rng(0)
    nodes, weights, before = [], [], "input"
    for number in range(blocks):
        kernel = generator.standard_normal((24, 24, 3, 3), np.float32) / 15
        weights.append(numpy_helper.from_array(kernel, f"w{number}"))
        nodes.append(helper.make_node("Conv", [before, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        before = f"r{number}"
    nodes.append(helper.make_node("GlobalAveragePool", [before], ["output"]))
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 24, 28, 28))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, 24, 1, 1))],
        weights,
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def main(work: Path, comparisons: int) -> None:
    work.mkdir(parents=True, exist_ok=True)
    old = write_network(work / "old.onnx", BLOCKS)
    files = {
        "same": Path(shutil.copyfile(old, work / "same.onnx")),
        "slower": write_network(work / "slower.onnx", BLOCKS + 1),
    }
    store = work / "gate.json"
    done: list[dict[str, Any]] = json.loads(store.read_text())["comparisons"] if store.exists() else []
    order = [(kind, number) for kind in KINDS for number in range(comparisons)]
    random.Random(0).shuffle(order)
    for kind, number in order:
        if any((each["kind"], each["number"]) == (kind, number) for each in done):
            continue
        started = time.monotonic()
        found = ratio_against_limit(old, files[kind], LIMIT, TARGET, MeasuringProtocol())
        result = {"kind": kind, "number": number, "finding": found.finding.value, **asdict(found)}
        result["seconds"] = time.monotonic() - started
        result["load_1min"] = os.getloadavg()[0]
        done.append(result)
        write_atomically(store, (json.dumps(summary(done), indent=1) + "\n").encode())
        print(f"{len(done)}/{len(order)} {kind}: {result['finding']} {found.interval}", file=sys.stderr)
    print(json.dumps(summary(done), indent=1))


def summary(done: list[dict[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {"target": str(TARGET), "limit": LIMIT}
    for kind in KINDS:
        mine = [each for each in done if each["kind"] == kind]
        findings = [each["finding"] for each in mine]
        ratios = [each["interval"]["value"] for each in mine if each["interval"]]
        document[kind] = {
            "comparisons": len(mine),
            **{name: findings.count(name) for name in sorted(set(findings))},
            "median_ratio": quantile(ratios, 0.5) if ratios else None,
            "median_launches": quantile([each["launches"] for each in mine], 0.5) if mine else None,
            "median_seconds": quantile([each["seconds"] for each in mine], 0.5) if mine else None,
        }
    return {**document, "comparisons": done}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40)
