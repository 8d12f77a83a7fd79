"""``lathe compile`` beside Olive on this machine's processor, as JSON on standard output.

python tools/bench/beside_olive.py OLIVE_PYTHON [--model NAME]... [--target host@1] [--shared DIR]
    [--work DIR] [--rounds 15]

OLIVE_PYTHON is the Python of an environment of its own, for example by

    python3.11 -m venv olive && olive/bin/pip install olive-ai onnxruntime requests

Both start from the same ONNX file, in which the weights of mobilenet_v2 and resnet_18 are random, and
calibrate with the same inputs. Olive runs each of its passes for the CPU (``olive_passes.py``); its best is
the fastest of what they give that loses no more accuracy than Lathe's choice may. Then all files run on one
thread in the same rounds (``side_by_side.py``): ratios are of their latencies to that of Lathe's choice, so
above 1 Lathe's is faster.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from devices.errors import LatheError
from devices.requests.prediction import predict_all
from devices.target import Target
from pipeline.compile import Feeding, ModelFormat, Place, Rules, Wish, compile_model
from pipeline.compile.samples import inputs_in, open_samples
from pipeline.progress import ConsoleReporter
from pipeline.work.disk import write_atomically
from pipeline.work.folder import WorkFolder

IMAGENET = Feeding((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TOOLS = str(Path(__file__).parent)
HERE = Target.parse("host/onnxruntime:fp32@1")
MAX_DROP = 0.5


def wishes(shared: Path, place: Place) -> dict[str, Wish]:
    """What is asked of Lathe; without labels nothing tells an accuracy, so the race is forced."""
    forced = Rules(forced=True)
    return {
        **{
            name: Wish(f"finished_networks:{name}", (place,), rules=forced, input_shape=(3, 224, 224))
            for name in ("mobilenet_v2", "resnet_18")
        },
        "resnet20": Wish(
            "pipeline.teachers.resnet:resnet_cifar",
            (place,),
            shared / "cifar10_jpeg" / "cifar10_jpeg_bytes.npz",
            IMAGENET,
            Rules(max_drop=MAX_DROP),
            {"depth": 20},
            weights=shared / "teachers_cifar10" / "resnet20.safetensors",
            input_shape=(3, 32, 32),
        ),
    }


def compared(wish: Wish, olive: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Everything about one model."""
    with ConsoleReporter() as reporter:
        work = WorkFolder(folder / "lathe")
        with work.opened():
            found = compile_model(wish, work, reporter)
    raced = found.raced[str(wish.places[0])]
    choice = raced.row(raced.chosen or raced.baseline)
    assert choice.file is not None
    samples = open_samples(found.samples, work.find(found.samples.arrays))
    model = work.find(found.model.files[ModelFormat.ONNX])
    names = [each.name for each in found.model.inputs]
    calibration = dict(zip(names, inputs_in(samples, "calibration"), strict=True))
    made = by_olive(model, calibration, olive, folder / "olive")
    files = {name: Path(each["file"]) for name, each in made.items() if "file" in each}
    labels = samples.get("labels")
    for name, file in files.items():
        made[name]["bytes"] = file.stat().st_size
        if labels is not None:
            made[name]["accuracy"] = accuracy(file, inputs_in(samples, "held_out"), labels)
    ours = f"{work.find(choice.file)}={choice.target}"
    words = [ours, *(f"{file}={HERE}" for file in files.values())]
    side = [sys.executable, f"{TOOLS}/side_by_side.py", *words, "--rounds", str(rounds)]
    measured = json.loads(subprocess.run(side, capture_output=True, check=True, text=True).stdout)
    for name, file in files.items():
        made[name]["over_lathe"] = measured[f"{file}={HERE}"]
    quality = choice.quality
    least = 0.0
    if quality is not None and quality.reference_accuracy is not None:
        least = quality.reference_accuracy - MAX_DROP / 100
    ratios = {
        name: made[name]["over_lathe"]["ratio"]
        for name in files
        if made[name]["over_lathe"]["ratio"] and (made[name].get("accuracy", 1.0) or 0.0) >= least
    }
    best = min(ratios, key=lambda name: ratios[name]["value"], default=None)
    return {
        "lathe": {
            "chosen": choice.name,
            "bytes": choice.size_bytes,
            "accuracy": None if quality is None else quality.accuracy,
            "model_accuracy": None if quality is None else quality.reference_accuracy,
        },
        "olive": made,
        "olive_best": best,
        "olive_best_over_lathe": ratios[best] if best else None,
    }


def by_olive(model: Path, inputs: dict[str, Any], olive: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """What Olive's passes leave, by pass."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: values[:, None] for name, values in inputs.items()}
    np.savez(folder / "inputs.npz", allow_pickle=False, **rows)
    command = [str(olive), f"{TOOLS}/olive_passes.py", str(model), str(folder / "inputs.npz"), str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=folder)
    found: dict[str, dict[str, Any]] = json.loads((folder / "found.json").read_text("utf-8"))
    return found


def accuracy(file: Path, inputs: tuple[Any, ...], labels: Any) -> float | None:
    """Share of the inputs that get their label; ``None`` if the file does not run."""
    try:
        outputs = predict_all(file, inputs, HERE)
    except LatheError:
        return None
    return float((outputs[0].argmax(axis=1) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("olive", type=Path)
    parser.add_argument("--model", action="append", default=None)
    parser.add_argument("--target", default="host@1")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    sys.path.insert(0, TOOLS)
    known = wishes(given.shared, Place.parse(given.target))
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.work or Path(temporary)).absolute()
        found = {}
        for name in given.model or known:
            result = folder / f"{name}.json"
            if not result.exists():
                document = compared(known[name], given.olive.absolute(), folder / name, given.rounds)
                write_atomically(result, json.dumps(document).encode())
            found[name] = json.loads(result.read_bytes())
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
