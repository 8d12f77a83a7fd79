"""What the inference scripts share. Its text is put into each script, so that a script is one file.

Only numpy and the standard library of Python 3.9 are used; image files need Pillow too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

try:
    import numpy as np
except ImportError as error:
    sys.exit(f"error: numpy cannot be imported ({error}); install it with: python -m pip install numpy")

from pipeline.tasks.metrics import (
    mean_average_precision,
    names_the_class,
    nearest_is_alike,
    r_squared,
)

Tensors = list[Any]
"""Arrays in the order of the model's inputs or outputs."""
Predict = Callable[[Tensors], Tensors]
Settings = dict[str, Any]
LoadModel = Callable[[str, Settings], Predict]
"""Opens a model file as it was measured: ``threads``, ``precision``, ``options`` by name, ``delegate``, where
they want the operations, and ``outputs``, as the manifest describes them."""


def main(runtime: str, load_model: LoadModel) -> NoReturn:
    """Read the arguments, run the model, and exit: 0 done, 1 an error, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        description=f"Runs the bundle's model by {runtime} and prints one JSON line per image or file. Of a "
        "classifier: the image's number, the file, the label, the label's index and probability; where an "
        "image may have several labels, each with its probability; of a regression its numbers; of an "
        "embedding its vector, of length 1. Image files are turned upright, resized to the model's size and "
        "cropped to their centre, which needs Pillow. Of another model: the file and the outputs by name."
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="for a classifier image files, or .npy files of uint8 images, shape (N, height, width, "
        "channels); for another model .npz files with an array for each input, or .npy files if it has only "
        "one input",
    )
    parser.add_argument(
        "--test", action="store_true", help="run the bundle's own test images and print the metric"
    )
    parser.add_argument("--top", type=int, default=1, metavar="N", help="name the N likeliest labels")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: as verified)")
    parser.add_argument("--target", help="which of the bundle's targets (default: the first of this runtime)")
    arguments = parser.parse_args()
    if bool(arguments.files) == arguments.test:
        parser.error("give either files or --test")
    if arguments.threads is not None and arguments.threads < 1:
        parser.error("--threads must be 1 or more")
    if arguments.top < 1:
        parser.error("--top must be 1 or more")
    try:
        _run(runtime, load_model, arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ImportError as error:
        sys.exit(
            f"error: {runtime} cannot be imported ({error}); the first lines of this script say what it needs"
        )
    except Exception as error:
        sys.exit(f"error: {error}")
    sys.exit(0)


def _run(runtime: str, load_model: LoadModel, arguments: argparse.Namespace) -> None:
    folder = Path(__file__).resolve().parent
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest["schema_version"] != 3:
        raise ValueError("manifest.json has another schema than this script; copy the whole bundle again")
    entry = _entry(manifest, runtime, arguments.target)
    model = folder / entry["artifact"]
    if hashlib.sha256(model.read_bytes()).hexdigest() != entry["artifact_digest"]:
        raise ValueError(f"{model} is not the file that was verified; copy the bundle again")
    if arguments.test and manifest["test"] is None:
        raise ValueError("this bundle has no test images")
    classifier, work = manifest["classifier"], []
    for file in arguments.files:
        given = _read(file, classifier["image"]) if classifier else [_read_tensors(file, entry["inputs"])]
        work += [(file, each) for each in given]
    predict = load_model(str(model), _settings(entry, arguments.threads))
    if arguments.test:
        with np.load(folder / manifest["test"], allow_pickle=False) as test:
            found = [_outputs(predict, image, classifier, entry) for image in test["images"]]
            print(json.dumps(_judged(np.stack(found), test["labels"], classifier["task"]["kind"])))
    elif classifier:
        for number, (file, image) in enumerate(work):
            outputs = _outputs(predict, image, classifier, entry)
            answer = {"image": number, "file": file, **_meaning(outputs, classifier, arguments.top)}
            print(json.dumps(answer), flush=True)
    else:
        for file, tensors in work:
            outputs = zip((each["name"] for each in entry["outputs"]), predict(tensors))
            answer = {"file": file, "outputs": {name: np.asarray(value).tolist() for name, value in outputs}}
            print(json.dumps(answer), flush=True)


def _outputs(predict: Predict, image: Any, classifier: dict[str, Any], entry: dict[str, Any]) -> Any:
    return np.asarray(predict([_prepare(image, classifier["preprocessing"], entry)])[0]).reshape(-1)


def _meaning(outputs: Any, classifier: dict[str, Any], top: int) -> dict[str, Any]:
    """What the outputs for an image say, in the words of the model's task."""
    task, labels = classifier["task"], classifier["labels"]
    known = classifier["outputs"] == "probabilities"
    outputs = outputs.astype(np.float64)
    if task["kind"] == "embedding":
        return {"embedding": (outputs / max(float(np.linalg.norm(outputs)), 1e-12)).tolist()}
    if task["kind"] == "regression":
        numbers = outputs * np.array(task["std"]) + np.array(task["mean"])
        return {"values": dict(zip(labels, numbers.tolist()))}
    if task["kind"] == "multi-label":
        shares = outputs if known else 0.5 * (1 + np.tanh(0.5 * outputs))
        return {
            "labels": [label for label, share in zip(labels, shares) if share >= 0.5],
            "probabilities": dict(zip(labels, shares.tolist())),
        }
    return _named(outputs if known else _softmax(outputs), labels, top)


def _softmax(logits: Any) -> Any:
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def _named(shares: Any, labels: list[str], top: int) -> dict[str, Any]:
    """The likeliest label, and the ``top`` likeliest ones if that is more than one."""
    likely = [int(index) for index in np.argsort(-shares, kind="stable")[:top]]
    named = [{"label": labels[k], "index": k, "probability": float(shares[k])} for k in likely]
    return {**named[0], "top": named} if top > 1 else named[0]


def _judged(outputs: Any, labels: Any, task: str) -> dict[str, Any]:
    """The task's metric on labelled images, and how many of them are right where it counts that."""
    if task == "multi-label":
        value = mean_average_precision(outputs, labels)
        return {"metric": "mean average precision", "value": value, "total": len(labels)}
    if task == "regression":
        return {"metric": "R2", "value": r_squared(outputs, labels), "total": len(labels)}
    found = nearest_is_alike(outputs, labels) if task == "embedding" else names_the_class(outputs, labels)
    correct, total = int((found > 0).sum()), int((found >= 0).sum())
    metric = "retrieval@1" if task == "embedding" else "accuracy"
    return {"metric": metric, "value": correct / max(1, total), "correct": correct, "total": total}


def _settings(entry: dict[str, Any], threads: int | None) -> Settings:
    """How the target was measured; this process is kept on its cores from here on."""
    described, _, measured_threads = entry["target"].rpartition("@")
    precision, *options = described.partition(":")[2].split("+")
    named = {option.partition("=")[0]: option.partition("=")[2] for option in options}
    if "cores" in named:
        _keep_on_cores(named["cores"])
    if entry["accuracy"] and entry["accuracy"]["target"]:
        note = "the latency was measured by the runtime's own tool; this script runs the same file by Python"
        print(f"note: {note}, as {entry['accuracy']['target']} does", file=sys.stderr)
    return {
        "threads": threads or int(measured_threads),
        "precision": precision,
        "options": named,
        "delegate": entry["delegate"],
        "outputs": entry["outputs"],
    }


def _keep_on_cores(text: str) -> None:
    cores: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    try:
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError) as error:
        raise ValueError(f"the model was measured on cores {text}, which cannot be had: {error}") from error


def _entry(manifest: dict[str, Any], runtime: str, target: str | None) -> dict[str, Any]:
    ours = [
        entry for entry in manifest["targets"] if entry["target"].partition("/")[2].startswith(runtime + ":")
    ]
    for entry in ours:
        if target in (None, entry["target"]):
            return dict(entry)
    names = ", ".join(entry["target"] for entry in ours) or "none"
    raise ValueError(f"this bundle has no target '{target}' for {runtime}; it has: {names}")


def _read(path: str, image: dict[str, Any]) -> Any:
    """The images of a file, uint8 ``(N, height, width, channels)``."""
    with Path(path).open("rb") as stream:
        start = stream.read(6)
    return _read_array(path, image) if start == b"\x93NUMPY" else _read_picture(path, image)[None]


def _read_array(path: str, image: dict[str, Any]) -> Any:
    try:
        images = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} holds something else than plain numbers, or is cut off") from error
    shape = (image["height"], image["width"], image["channels"])
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        seen = f"{images.dtype} {images.shape}"
        raise ValueError(f"{path} holds {seen}; this model takes uint8 (N, {str(shape)[1:-1]})")
    return images


def _read_picture(path: str, image: dict[str, Any]) -> Any:
    """As it is seen: upright, transparent parts over the background of the training images."""
    if image["channels"] not in (1, 3):
        raise ValueError(
            f"{path} is no .npy file, and this model takes images of {image['channels']} channels, which no "
            "image file has"
        )
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ValueError(
            f"{path} is not a .npy file, and image files need Pillow: python -m pip install pillow"
        ) from None
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture, np.uint16) >> 8).astype(np.uint8))
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        below = Image.new("RGBA", picture.size, (*image["background"], 255))
        below.alpha_composite(picture.convert("RGBA"))
        picture = below
    picture = picture.convert("L" if image["channels"] == 1 else "RGB")
    size = (image["width"], image["height"])
    fitted = ImageOps.fit(picture, size, Image.Resampling.BILINEAR)
    return np.asarray(fitted).reshape(image["height"], image["width"], image["channels"])


def _read_tensors(path: str, described: list[dict[str, Any]]) -> Tensors:
    """One array for each input, in their order, of a .npz file, or of a .npy file for the only one."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {described[0]["name"]: loaded} if len(described) == 1 else {}
        else:
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npy or .npz file of plain numbers, or is cut off") from error
    names = [each["name"] for each in described]
    if sorted(arrays) != sorted(names):
        raise ValueError(f"{path} does not hold the inputs of this model: {', '.join(names)}")
    for each in described:
        value = arrays[each["name"]]
        if list(value.shape) != list(each["shape"]) or value.dtype != np.dtype(each["dtype"]):
            wanted = f"{each['dtype']} {tuple(each['shape'])}"
            raise ValueError(
                f"{path}: {each['name']} is {value.dtype} {value.shape}; this model takes {wanted}"
            )
    return [np.ascontiguousarray(arrays[name]) for name in names]


def _prepare(image: Any, steps: dict[str, Any], entry: dict[str, Any]) -> Any:
    scaled = image[None].astype(np.float32) / np.float32(steps["scale"])
    ready = (scaled - np.array(steps["mean"], np.float32)) / np.array(steps["std"], np.float32)
    if entry["inputs"][0]["layout"] == "NCHW":
        ready = ready.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(ready)
