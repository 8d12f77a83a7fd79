"""Memory of a run on photographs at 224x224, as JSON.

    python tools/bench/photographs.py [COUNT [BATCH]]
    python tools/bench/photographs.py alone IMAGES

COUNT (1000) made-up JPEGs of 256x256 in ten classes, and a ResNet-18 of transformers with random weights in a
folder as ``save_pretrained`` writes it, go through a whole run to a bundle, which is verified. The space is
the default one of 224x224; candidates, epochs and launches are few, as they decide time and not memory. All
trainings take BATCH (64) images in a step. The peak is that of the process tree, pages of mapped files
included.

``alone`` is one process with that teacher and the space's largest student: its peak after both have evaluated
a batch as evaluations have it, and after training steps of the student with IMAGES.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from image_folder import write_photographs
from quickstart import timed

SIZE, CLASSES, STEPS = 224, 10, 3
RECIPE = """
name = "photographs"
allow_chance = true
data = {{ kind = "folder", path = "photographs", image_size = {size} }}
measure = {{ launches = 3, calibration_networks = 6 }}
search.evaluations = 2
search.ratings = []
search.train_limit = 200
search.training = {{ epochs = 1, batch_size = {batch} }}
distil = {{ epochs = 1, batch_size = {batch} }}
verify = {{ launches = 6 }}

[[teacher]]
kind = "huggingface"
path = "teacher"

[[target]]
name = "host/onnxruntime:fp32@1"
budget = "0.9x teacher"
"""


def make_teacher() -> Any:
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=CLASSES,
    )
    return ResNetForImageClassification(config).eval()


def write_teacher(folder: Path) -> None:
    from transformers import ViTImageProcessor

    make_teacher().save_pretrained(folder)
    ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)


def alone(images: int) -> None:
    import torch

    from pipeline.data.base import Preprocessing, Split
    from pipeline.data.tensors import batches_of
    from pipeline.distill.allocator import freed_memory_kept
    from pipeline.spaces.mobile.space import MobileSpace

    def peak_gb() -> float:
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)

    space = MobileSpace.from_config(None, (3, SIZE, SIZE), CLASSES)
    networks = [make_teacher(), space.build(space.reference()).eval()]
    for network in networks:
        network.to(memory_format=torch.channels_last)
    split = Split(np.zeros((256, SIZE, SIZE, 3), np.uint8), np.zeros(256, np.int64))
    batch = next(batches_of(split, Preprocessing((0.5,) * 3, (0.3,) * 3)))
    with torch.no_grad():
        for network in networks:
            network(batch.to(memory_format=torch.channels_last))
    evaluation_gb = peak_gb()
    given = torch.zeros(images, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    with freed_memory_kept():
        for _ in range(STEPS):
            networks[1].train()(given).sum().backward()
    found = {"evaluated": len(batch), "evaluation_gb": evaluation_gb, "trained": images, "step_gb": peak_gb()}
    print(json.dumps(found, indent=1))


def main(count: int, batch: int) -> None:
    with tempfile.TemporaryDirectory(prefix="lathe-bench-") as temporary:
        folder = Path(temporary)
        write_photographs(folder / "photographs", count)
        write_teacher(folder / "teacher")
        (folder / "recipe.toml").write_text(RECIPE.format(size=SIZE, batch=batch))
        kept = ["--work", str(folder / "work"), "--db", str(folder / "latency.db")]
        wall_s, peak_bytes, run = timed(["run", str(folder / "recipe.toml"), "--json", *kept])
        if run.returncode != 0:
            sys.exit(run.stderr)
        result = json.loads(run.stdout)
        _, verify_peak_bytes, verified = timed(["verify", result["bundle"]])
    found = {
        "images": count,
        "size": SIZE,
        "batch": batch,
        "wall_s": round(wall_s, 1),
        "peak_gb": round(peak_bytes / 1e9, 2),
        "verify_peak_gb": round(verify_peak_bytes / 1e9, 2),
        "holds_when_verified_again": verified.returncode == 0,
        "stage_s": {stage["name"]: stage["seconds"] for stage in result["stages"]},
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["alone"]:
        alone(int(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, int(sys.argv[2]) if len(sys.argv) > 2 else 64)
