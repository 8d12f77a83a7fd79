"""What ``lathe compile`` gives and costs, beside trying everything, as JSON on standard output.

``python tools/bench/compile.py [--model NAME]... [--shared FOLDER] [--work FOLDER] [--exhaustive]``

For each model: the latency of the choice over ONNX Runtime's fp32 default and the points of accuracy that it
loses; how long the call took, and the same call again. With ``--exhaustive`` all variants are made, compared
and measured to the end, also those that the race stops or never tries: how much slower the choice is than the
best of those that keep the accuracy, all in the same rounds, and how long that took.

Models of ``--shared`` (published CIFAR-10 weights and images) have accuracies; the others have random weights
and only say how long inferences take, so they are forced.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from devices.inventory import connected
from devices.measurement import MeasuringProtocol
from devices.measuring import LAUNCHES, Rounds, measure_round, probe
from pipeline.compile import CompiledModel, Feeding, Place, Rules, Wish, compile_model
from pipeline.compile.compiling import race_input
from pipeline.compile.race import everything
from pipeline.progress import ConsoleReporter
from pipeline.work.folder import WorkFolder

IMAGENET = Feeding((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TOOLS = str(Path(__file__).parent)


def wishes(shared: Path, target: str) -> dict[str, tuple[Wish, list[str]]]:
    """What is asked for, and the same as arguments of the command."""
    teachers, images = shared / "teachers_cifar10", shared / "cifar10_jpeg" / "cifar10_jpeg_bytes.npz"
    place, forced = (Place.parse(target),), Rules(forced=True)
    found = {
        "mlperf-tiny-resnet8": Wish(
            str(teachers / "mlperf_tiny_resnet8_float.tflite"), place, images, Feeding((0.0,), (1 / 255,))
        ),
        "mlperf-tiny-resnet8-torch": Wish(
            "finished_networks:mlperf_tiny_resnet_8",
            place,
            images,
            Feeding((0.0,), (1 / 255,)),
            weights=teachers / "mlperf_tiny_resnet8.safetensors",
            input_shape=(3, 32, 32),
        ),
        "resnet56": Wish(
            "pipeline.teachers.resnet:resnet_cifar",
            place,
            images,
            IMAGENET,
            arguments={"depth": 56},
            weights=teachers / "resnet56.safetensors",
            input_shape=(3, 32, 32),
        ),
    }
    for name in ("mobilenet_v2", "resnet_18"):
        function = f"finished_networks:{name}"
        found[name] = Wish(function, place, rules=forced, input_shape=(3, 224, 224))
    return {name: (wish, arguments(wish, target)) for name, wish in found.items()}


def arguments(wish: Wish, target: str) -> list[str]:
    words = [wish.model, "--target", target]
    if wish.data is not None:
        words += ["--data", str(wish.data)]
        words += [
            "--mean",
            ",".join(map(str, wish.feeding.mean)),
            "--std",
            ",".join(map(str, wish.feeding.std)),
        ]
    for name, value in wish.arguments.items():
        words += ["--argument", f"{name}={value}"]
    if wish.weights is not None:
        words += ["--weights", str(wish.weights)]
    if wish.input_shape is not None:
        words += ["--input-shape", "x".join(map(str, wish.input_shape))]
    return words + (["--force"] if wish.rules.forced else [])


def figures(name: str, wish: Wish, words: list[str], folder: Path, *, exhaustive: bool) -> dict[str, Any]:
    with ConsoleReporter() as reporter:
        work = WorkFolder(folder)
        with work.opened():
            found = compile_model(wish, work, reporter)
        (raced,) = found.raced.values()
        started = time.monotonic()
        program = f"import sys; sys.path.append({TOOLS!r}); from pipeline.cli.main import main; main()"
        command = [sys.executable, "-c", program, "compile", *words, "--work", str(folder), "--json"]
        again = subprocess.run(command, capture_output=True, check=True)
        again_s = time.monotonic() - started
        chosen = raced.row(raced.chosen or raced.baseline)
        document: dict[str, Any] = {
            "model": name,
            "chosen": chosen.name,
            "baseline": raced.baseline,
            "ratio": None
            if chosen.ratio is None
            else [chosen.ratio.low, chosen.ratio.value, chosen.ratio.high],
            "drop_points": None if wish.rules.forced or chosen.quality is None else chosen.quality.drop,
            "seconds": round(found.seconds, 1),
            "again_seconds": round(again_s, 2),
            "again_cached": bool(json.loads(again.stdout)["cached"]),
            "tried": sum(row.measurement is not None for row in raced.rows),
        }
        if exhaustive:
            with work.opened():
                document["exhaustive"] = against_everything(found, wish, work, reporter)
    return document


def against_everything(
    found: CompiledModel, wish: Wish, work: WorkFolder, reporter: ConsoleReporter
) -> dict[str, Any]:
    """Every variant made, compared, and measured in all rounds."""
    (raced,) = found.raced.values()
    place, protocol = wish.places[0], replace(MeasuringProtocol(), launches=LAUNCHES)
    rows = everything(race_input(found.model, found.samples, place, wish.rules), work, reporter)
    made_s = sum(record.seconds for record in work.records if record.name != "race")
    entrants = [each.entrant for each in rows.values()]
    started = time.monotonic()
    with connected(place.device) as connection, reporter.task("measuring everything", "rounds") as task:
        rounds = []
        for number in range(LAUNCHES):
            task(number, LAUNCHES)
            rounds.append(measure_round(entrants, protocol, number, connection))
    measured_s = time.monotonic() - started
    table = Rounds(tuple(rounds), protocol, probe(entrants[0].target)[1].cores)
    keeping = [name for name, each in rows.items() if each.keeps and table.count(name)]
    ratios = {name: table.ratio(name, raced.baseline) for name in keeping}
    best = min(ratios, key=lambda name: ratios[name].value)
    chosen = raced.row(raced.chosen or raced.baseline)
    plain = chosen.variant if chosen.variant in rows else raced.baseline
    regret = table.ratio(plain, best)
    return {
        "variants": len(rows),
        "best": best,
        "best_ratio": ratios[best].value,
        "chosen_over_best": None if regret is None else [regret.low, regret.value, regret.high],
        "seconds": round(made_s + measured_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", action="append", default=None)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--target", default="host@1")
    parser.add_argument("--exhaustive", action="store_true")
    given = parser.parse_args()
    sys.path.insert(0, TOOLS)
    known = wishes(given.shared, given.target)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.work or Path(temporary)
        found = [
            figures(name, *known[name], folder / name, exhaustive=given.exhaustive)
            for name in given.model or known
        ]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
