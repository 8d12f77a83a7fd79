"""Memory of a run on photographs at 224x224: ``python tools/bench/photographs.py [COUNT]``, as JSON.

COUNT (1000) made-up JPEGs of 256x256 in ten classes, and a ResNet-18 of transformers with random weights in a
folder as ``save_pretrained`` writes it, go through a whole run to a bundle, which is verified. The space is
the default one of 224x224; candidates, epochs and launches are few, as they decide time and not memory. The
peak is that of the process tree, pages of mapped files included.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from image_folder import write_photographs
from quickstart import timed

SIZE, CLASSES = 224, 10
RECIPE = f"""
name = "photographs"
allow_chance = true
data = {{ kind = "folder", path = "photographs", image_size = {SIZE} }}
measure = {{ launches = 3, calibration_networks = 6 }}
search = {{ evaluations = 2, ratings = [], training = {{ epochs = 1 }}, train_limit = 200 }}
distil = {{ epochs = 1 }}
verify = {{ launches = 6 }}

[[teacher]]
kind = "huggingface"
path = "teacher"

[[target]]
name = "host/onnxruntime:fp32@1"
budget = "0.9x teacher"
"""


def write_teacher(folder: Path) -> None:
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=CLASSES,
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)


def main(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="lathe-bench-") as temporary:
        folder = Path(temporary)
        write_photographs(folder / "photographs", count)
        write_teacher(folder / "teacher")
        (folder / "recipe.toml").write_text(RECIPE)
        kept = ["--work", str(folder / "work"), "--db", str(folder / "latency.db")]
        wall_s, peak_bytes, run = timed(["run", str(folder / "recipe.toml"), "--json", *kept])
        if run.returncode != 0:
            sys.exit(run.stderr)
        result = json.loads(run.stdout)
        _, verify_peak_bytes, verified = timed(["verify", result["bundle"]])
    found = {
        "images": count,
        "size": SIZE,
        "wall_s": round(wall_s, 1),
        "peak_gb": round(peak_bytes / 1e9, 2),
        "verify_peak_gb": round(verify_peak_bytes / 1e9, 2),
        "holds_when_verified_again": verified.returncode == 0,
        "stage_s": {stage["name"]: stage["seconds"] for stage in result["stages"]},
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
