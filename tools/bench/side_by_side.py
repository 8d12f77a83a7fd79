"""Files on any runtimes of one device, measured round by round, as ratios to the first.

python tools/bench/side_by_side.py FILE=TARGET FILE=TARGET ... [--rounds 15]

For example teacher.onnx=host/onnxruntime:fp32@1 student.onnx=host/openvino:bf16@1. In a round each file gets
one launch, in random order. Prints JSON: the ratio of each latency to that of the first, round by round,
with its interval.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from devices.inventory.devices import connected
from devices.measurement import MeasuringProtocol
from devices.measuring import Entrant, Rounds, measure_round, probe
from devices.target import Target


def entrant(text: str) -> Entrant:
    path, _, target = text.rpartition("=")
    return Entrant(text, Path(path), Target.parse(target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=entrant)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    entrants, protocol = arguments.files, MeasuringProtocol()
    first = entrants[0]
    _, device = probe(first.target)
    with connected(first.target.device) as connection:
        found = tuple(
            measure_round(entrants, protocol, number, connection) for number in range(arguments.rounds)
        )
    table = Rounds(found, protocol, device.cores)
    result = {}
    for each in entrants:
        ratio = table.ratio(each.name, first.name)
        failure = table.failure(each.name)
        result[each.name] = {
            "ratio": ratio and {"low": ratio.low, "value": ratio.value, "high": ratio.high},
            "rounds": table.count(each.name),
            "failure": failure and failure.detail,
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
