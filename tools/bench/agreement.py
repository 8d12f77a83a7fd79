"""Whether the runtimes' own loops, written by hand, give the same medians, launch by launch beside ours.

python tools/bench/agreement.py [ROUNDS] > agreement.json

In each round every model is measured by one launch of Lathe and by one fresh process with a loop of a few
lines, in random order. The ratio is of the medians over rounds of the two.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from models import make_models

from devices.measurement import Measurement, MeasuringProtocol, quantile
from devices.measuring import Job, measure
from devices.target import Target

MODELS = ("c1", "c2", "c3", "c4", "c5", "c6")
LOOP = """
import sys, time, numpy
{load}
for _ in range(20):
    run()
samples, end = [], time.perf_counter() + 0.3
while len(samples) < 50 or time.perf_counter() < end:
    start = time.perf_counter_ns()
    run()
    samples.append(time.perf_counter_ns() - start)
print(int(numpy.median(samples)))
"""
LOADS = {
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
node = session.get_inputs()[0]
inputs = {node.name: numpy.random.default_rng(0).standard_normal(node.shape).astype("float32")}
binding = session.io_binding()
binding.bind_ortvalue_input(node.name, onnxruntime.OrtValue.ortvalue_from_numpy(inputs[node.name]))
binding.bind_output(session.get_outputs()[0].name)
run = lambda: session.run_with_iobinding(binding)
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
entry = interpreter.get_input_details()[0]
values = numpy.random.default_rng(0).standard_normal(entry["shape"]).astype("float32")
interpreter.set_tensor(entry["index"], values)
run = interpreter.invoke
""",
}


def by_hand(runtime: str, artifact: Path) -> float:
    code = LOOP.format(load=LOADS[runtime])
    ended = subprocess.run([sys.executable, "-c", code, artifact], capture_output=True, text=True, check=True)
    return float(ended.stdout)


def by_lathe(runtime: str, artifact: Path) -> float:
    once = replace(MeasuringProtocol(), launches=1, max_launches=0)
    outcome = measure([Job("a", artifact)], Target("host", runtime), once)["a"]
    assert isinstance(outcome, Measurement), outcome
    return outcome.launches[0].quantile_ns(0.5)


def main(rounds: int) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = make_models(Path(folder), MODELS)
        medians: dict[tuple[str, str], dict[str, list[float]]] = {
            (runtime, name): {"lathe": [], "hand": []} for runtime in files for name in MODELS
        }
        tasks = [(way, runtime, name) for way in (by_lathe, by_hand) for runtime in files for name in MODELS]
        for number in range(rounds):
            random.Random(number).shuffle(tasks)
            for way, runtime, name in tasks:
                kind = "lathe" if way is by_lathe else "hand"
                medians[runtime, name][kind].append(way(runtime, files[runtime][name]))
            print(f"{number + 1}/{rounds}", file=sys.stderr)
    for (runtime, name), found in medians.items():
        ours, theirs = (quantile(found[kind], 0.5) for kind in ("lathe", "hand"))
        rows.append(
            {"runtime": runtime, "model": name, "hand_ms": theirs / 1e6, "lathe_over_hand": ours / theirs}
        )
    worst = max(rows, key=lambda row: abs(row["lathe_over_hand"] - 1))
    print(json.dumps({"rounds": rounds, "worst_ratio": worst["lathe_over_hand"], "detail": rows}, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
