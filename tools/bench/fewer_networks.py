"""How many whole networks a table's model needs, as JSON: ``python tools/bench/fewer_networks.py FOLDER``.

FOLDER is one of ``own_device.py``; nothing is measured. For each of its tables, models are fitted on the
first networks of the plan, and predict the random networks that were measured to verify the table, corrected
for drift: mean absolute percentage error, share within 5 %, Spearman, and how many measurements the intervals
hold, without what the machine's history adds to them.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

from own_device import Study

from devices.measurement import MeasuringProtocol
from devices.target import Target
from latency_db.models import accuracy_of
from latency_db.store import open_store
from pipeline.export.base import format_of
from pipeline.progress import SilentReporter
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.measuring import look_up
from pipeline.tables.building.networks import SeenNetwork, fit_seen, network_workloads
from pipeline.tables.building.plan import block_names, distinct_architectures
from pipeline.tables.building.space_table import load

COUNTS = (8, 12, 16, 24, 32, 40)
DRAWN = 200


def curve(study: Study) -> dict[str, Any]:
    """Figures by the number of networks in the fit."""
    space, target, bench = study.space, study.target, study.bench
    built = load(space, target, bench)
    others = (each for each in distinct_architectures(space, 1) if each not in built.architectures)
    fresh = list(itertools.islice(others, DRAWN))
    parts = network_workloads(space, fresh, format_of(target))
    found = look_up(bench, target, [each.workload for each in parts], disturbed=True)
    test = [
        seen
        for network, part in zip(fresh, parts, strict=True)
        if part.workload.identity in found
        and (seen := SeenNetwork.of(network, target, found[part.workload.identity]))
    ]
    names = [block_names(space, each.architecture) for each in test]
    measured = [built.corrected_ns(each) for each in test]
    figures: dict[str, Any] = {"verified": len(test)}
    for count in COUNTS:
        if count <= len(built.networks):
            estimates = fit_seen(space, built.table, built.networks[:count]).estimate(names)
            accuracy = accuracy_of(measured, [each.value_ns for each in estimates])
            held = sum(
                each.low_ns <= value <= each.high_ns for each, value in zip(estimates, measured, strict=True)
            )
            figures[str(count)] = {
                "mape": round(accuracy.mape, 4),
                "within_5_percent": round(accuracy.within_5_percent, 3),
                "spearman": round(accuracy.spearman, 5),
                "held": round(held / len(test), 3),
            }
    return figures


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("host-*.json"))]
    document = {}
    with open_store(str(folder / "latency.db")) as store:
        bench = Bench(store, MeasuringProtocol(), SilentReporter())
        for each in results:
            study = Study(bench, folder, Target.parse(each["target"]), each["input"], 0)
            document[study.name] = curve(study)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
