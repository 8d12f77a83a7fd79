"""What Olive makes of an ONNX model for the CPU: run by the Python of an environment with ``olive-ai``.

``python olive_passes.py MODEL INPUTS.npz FOLDER`` leaves ``FOLDER/found.json``: by pass a file, or why not.

Each pass runs by Olive's own workflow (``olive.workflows.run``), on the model with Olive's graph fusions.
Static quantisation calibrates with the inputs: an array by the name of each input of the model, with batches
of one. Olive also has a pass for transformers and one that tunes the options of sessions; the first does not
concern convolutional networks, the second changes no file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

_STATIC = {"type": "OnnxStaticQuantization", "data_config": "samples", "quant_format": "QDQ"}
_PER_CHANNEL = {**_STATIC, "per_channel": True, "activation_type": "uint8", "precision": "int8"}
PASSES: dict[str, list[dict[str, Any]]] = {
    "fp32": [],
    "static-defaults": [_STATIC],
    "static-u8s8": [_PER_CHANNEL],
    "static-s8s8": [{**_PER_CHANNEL, "activation_type": "int8"}],
    "dynamic": [{"type": "OnnxDynamicQuantization"}],
}


def register(inputs: dict[str, Any]) -> None:
    """Make the inputs a data set that workflows can name."""
    from olive.data.component.dataset import BaseDataset
    from olive.data.registry import Registry

    count = min(len(rows) for rows in inputs.values())
    rows = [{name: values[number] for name, values in inputs.items()} for number in range(count)]

    @Registry.register_dataset(name="lathe_samples")
    def samples(**_: Any) -> Any:
        return BaseDataset(rows)


def optimise(model: Path, passes: list[dict[str, Any]], folder: Path) -> Path:
    """Run a workflow, and find the file that it leaves."""
    from olive.workflows import run

    fused = [{"type": "OnnxPeepholeOptimizer"}, *passes]
    nothing = {"type": "no_auto_batch_dataloader", "params": {"batch_size": 1}}
    done = run(
        {
            "input_model": {"type": "OnnxModel", "model_path": str(model)},
            "systems": {
                "here": {
                    "type": "LocalSystem",
                    "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
                }
            },
            "data_configs": [
                {
                    "name": "samples",
                    "load_dataset_config": {"type": "lathe_samples"},
                    "pre_process_data_config": {"type": "skip_pre_process"},
                    "dataloader_config": nothing,
                }
            ],
            "passes": {f"{number}_{each['type']}": each for number, each in enumerate(fused)},
            "host": "here",
            "target": "here",
            "output_dir": str(folder / "output"),
            "cache_dir": str(folder / "cache"),
            "log_severity_level": 3,
        }
    )
    best = done.get_best_candidate()
    return Path(best.model_path)


def main() -> None:
    model, inputs, folder = map(Path, sys.argv[1:])
    with np.load(inputs) as arrays:
        register(dict(arrays))
    found = {}
    for name, passes in PASSES.items():
        try:
            found[name] = {"file": str(optimise(model, passes, folder / name))}
        except Exception as error:
            found[name] = {"why": f"{type(error).__name__}: {error}"}
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
