"""Image classifiers of the package transformers, from a folder or the hub's cache; nothing is downloaded.

No code that lies in a folder is run: folders with code, or with files that ask for it, are refused. Weights
are safetensors, or read by torch with ``weights_only=True``.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from devices.untrusted import open_zip, regular_size
from pipeline.errors import TeacherError
from pipeline.teachers.building import Built, Tell
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.folders import has_safetensors, transformers_here

_MOST_JSON_BYTES = 16_000_000
_UNNAMED = re.compile(r"LABEL_\d+")
_PROBED_PIXELS = 301
_SHOWN = 4


def build_from_folder(config: TeacherConfig, classes: int, tell: Tell) -> Built:
    """The network of a folder as ``save_pretrained`` writes it, with what its image processor asks for.

    Args:
        config: the recipe's table; what it says of images comes before the processor.
        classes: of the data; a teacher that is trained here and has another number of them gets a new head.
        tell: called with a line where weights are drawn.

    Raises:
        TeacherError: transformers is not installed; the folder is missing, has code, no configuration of an
            image classifier, no weights or not all of them; or nothing says how images are prepared.
    """
    folder = config.path
    assert folder is not None
    transformers = transformers_here()
    _attempt(folder, lambda: _require_plain_files(folder))
    _require_no_code(folder)
    if not (folder / "config.json").is_file():
        raise TeacherError(
            f"the folder '{folder}' is no teacher of transformers",
            why="it has no config.json" if folder.is_dir() else "it does not exist",
            fix="give the folder that model.save_pretrained wrote, with its image processor",
        )
    keys: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    settings = _attempt(folder, lambda: transformers.AutoConfig.from_pretrained(folder, **keys))
    changed: dict[str, Any] = {}
    if config.training is not None and config.classes is None and settings.num_labels != classes:
        changed = {"num_labels": classes, "ignore_mismatched_sizes": True}
    network, found = _attempt(
        folder,
        lambda: transformers.AutoModelForImageClassification.from_pretrained(
            folder,
            **keys,
            **changed,
            weights_only=True,
            use_safetensors=has_safetensors(folder),
            # Of all implementations this one is there for every network, and never fetched from elsewhere.
            attn_implementation="eager",
            dtype=torch.float32,
            output_loading_info=True,
        ),
    )
    drawn = sorted({*found["missing_keys"], *(each[0] for each in found["mismatched_keys"])})
    if drawn and config.training is None:
        raise TeacherError(
            f"the folder '{folder}' has not all weights of its network",
            why=f"missing: {_listed(drawn)}",
            fix="give a folder of a network that was trained to classify, or [teacher.training] to train it",
        )
    if drawn:
        tell(f"teacher      '{config.name}' begins with new weights in {_listed(drawn)}")
    names = () if changed else _class_names(network.config)
    completed = _completed(config, settings, folder, transformers)
    return Built(network, completed, names, known_output=True, drawn=bool(drawn))


def _require_plain_files(folder: Path) -> None:
    """Refuse what transformers would read without an end, or into all memory.

    Raises:
        ValueError: naming the file.
    """
    for path in sorted(folder.glob("*")):
        if not path.is_dir():
            size = regular_size(path)
            if path.suffix == ".json" and size > _MOST_JSON_BYTES:
                raise ValueError(f"{path.name} has more than {_MOST_JSON_BYTES:,} bytes")
            if zipfile.is_zipfile(path):
                open_zip(path).close()


def _require_no_code(folder: Path) -> None:
    code = sorted(path.name for path in folder.glob("*.py"))
    asking = [path.name for path in sorted(folder.glob("*.json")) if b'"auto_map"' in path.read_bytes()]
    if code or asking:
        raise TeacherError(
            f"the folder '{folder}' has code of its own, which is never run",
            why=f"code: {_listed(code)}" if code else f"{_listed(asking)} has 'auto_map', which names code",
            fix="use a network that transformers has itself; or, where you trust the code, call it in a "
            "function of your own, kind = 'factory'",
        )


def _attempt(folder: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # transformers raises many kinds
        why = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, OSError) and "no file named" in str(error):
            raise TeacherError(
                f"the folder '{folder}' has no weights",
                why="it has neither model.safetensors nor pytorch_model.bin",
                fix="save the whole network there with model.save_pretrained",
            ) from error
        raise TeacherError(
            f"transformers cannot open the folder '{folder}'",
            why=why,
            fix="give the folder of an image classifier, as model.save_pretrained writes it",
        ) from error


def _class_names(settings: Any) -> tuple[str, ...]:
    """Names of the outputs, where somebody gave them any."""
    names = tuple(str(settings.id2label.get(place, "")) for place in range(settings.num_labels))
    return () if any(not name or _UNNAMED.fullmatch(name) for name in names) else names


def _completed(config: TeacherConfig, settings: Any, folder: Path, transformers: Any) -> TeacherConfig:
    """The table with size, channels and normalisation of the folder's image processor."""
    found: dict[str, Any] = {}
    if (folder / "preprocessor_config.json").is_file() or (folder / "processor_config.json").is_file():
        found = _asked_for(folder, transformers)
    elif config.mean is None:
        raise TeacherError(
            f"the folder '{folder}' does not say how images are prepared",
            why="it has no preprocessor_config.json",
            fix="save the image processor there with processor.save_pretrained, or set mean, std and resize",
        )
    size = getattr(settings, "image_size", None)
    found.setdefault("resize", size if isinstance(size, int) else None)
    if getattr(settings, "num_channels", 3) == 3:
        found["channels"] = 3
    given = {
        name: getattr(config, name)
        for name in ("resize", "channels", "mean", "std")
        if getattr(config, name) is not None
    }
    if config.channel_order != "rgb":
        given["channel_order"] = config.channel_order
    return config.model_copy(update={**found, **given})


def _asked_for(folder: Path, transformers: Any) -> dict[str, Any]:
    """What the image processor makes of images of one colour: their size, and how bytes become numbers."""
    import numpy as np
    from PIL import Image

    processor = _attempt(
        folder,
        lambda: transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        ),
    )
    colours = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [Image.new("RGB", (_PROBED_PIXELS, _PROBED_PIXELS), colour) for colour in colours]
    made = _attempt(folder, lambda: processor(images=images, return_tensors="np")["pixel_values"])
    made = np.asarray(made, np.float64)
    plain = made.ndim == 4 and made.shape[1] == 3 and made.shape[2] == made.shape[3]
    if not plain or np.ptp(made, axis=(2, 3)).max() > 1e-3:
        raise TeacherError(
            f"the image processor in '{folder}' prepares images in a way that is not understood",
            why=f"of square images it makes an array {made.shape}, expected (4, 3, size, size) of one colour",
            fix="remove preprocessor_config.json and set mean, std and resize in [[teacher]]",
        )
    values = made[:, :, 0, 0]
    black, gains = values[0], values[1:] - values[0]
    order = "rgb" if abs(gains[0, 0]) >= abs(gains[0, 2]) else "bgr"
    scale = np.diag(gains if order == "rgb" else gains[::-1])
    if (scale <= 0).any():
        raise TeacherError(
            f"the image processor in '{folder}' prepares images in a way that is not understood",
            why="brighter images do not give larger numbers",
            fix="remove preprocessor_config.json and set mean, std and resize in [[teacher]]",
        )
    mean, std = -black / scale, 1 / scale
    return {
        "resize": made.shape[2] if made.shape[2] != _PROBED_PIXELS else None,
        "mean": tuple(round(float(each), 6) for each in mean),
        "std": tuple(round(float(each), 9) for each in std),
        "channel_order": order,
    }


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
