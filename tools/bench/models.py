"""Eight convolutional networks from about 0.05 to 20 ms on one core, as ONNX and LiteRT files."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

SIZES = {  # name: (resolution, channels, layers)
    "c1": (16, 32, 4),
    "c2": (32, 32, 3),
    "c3": (32, 32, 6),
    "c4": (32, 48, 5),
    "c5": (56, 48, 4),
    "c6": (56, 48, 8),
    "c7": (56, 64, 8),
    "c8": (112, 64, 7),
}
SUFFIXES = {"onnxruntime": ".onnx", "litert": ".tflite"}


def make_models(folder: Path, names: tuple[str, ...] = tuple(SIZES)) -> dict[str, dict[str, Path]]:
    """Files by runtime and name; those that are there already are not made again."""
    import torch

    files: dict[str, dict[str, Path]] = {runtime: {} for runtime in SUFFIXES}
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        resolution, channels, layers = SIZES[name]
        torch.manual_seed(0)
        blocks = [torch.nn.Conv2d(3, channels, 3, padding=1), torch.nn.ReLU()]
        for _ in range(layers - 1):
            blocks += [torch.nn.Conv2d(channels, channels, 3, padding=1), torch.nn.ReLU()]
        network = torch.nn.Sequential(*blocks, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
        inputs = (torch.randn(1, 3, resolution, resolution),)
        for runtime, suffix in SUFFIXES.items():
            path = files[runtime][name] = folder / f"{name}{suffix}"
            if path.exists():
                continue
            partial = path.with_name(f"partial-{path.name}")
            if runtime == "onnxruntime":
                with contextlib.redirect_stdout(sys.stderr):
                    torch.onnx.export(network, inputs, partial, external_data=False, verbose=False)
            else:
                import litert_torch

                with contextlib.redirect_stdout(sys.stderr):
                    litert_torch.convert(network, inputs).export(str(partial))
            partial.rename(path)
    return files


if __name__ == "__main__":
    import sys

    make_models(Path(sys.argv[1]))
