"""Runs of the tasks beside one class for each image, from data to a bundle that verifies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.bundle import RunOrigin, read_bundle, read_test
from tests.lathe_process import run_here
from tests.pipeline.run.tiny_recipe import ONE_TARGET, run_recipe, write_recipe

pytestmark = [pytest.mark.usefixtures("quiet_machine", "exporters_here"), pytest.mark.slow]

INT8 = "host/onnxruntime:int8@1"
CORNERS = ("top left", "top right", "bottom left")
# Not square.
HEIGHT, WIDTH, DIMENSIONS = 8, 12, 6


class Projection(nn.Module):
    """A teacher of embeddings: the mean brightness of six parts of the image, turned."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((2, 3))
        self.turn = nn.Linear(6, DIMENSIONS)

    def forward(self, images: Tensor) -> Tensor:
        return self.turn(self.pool(images).flatten(1))


def bright_corners(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of which each of three corners is bright or not, and which ones are."""
    generator = np.random.default_rng(seed)
    bright = generator.random((count, 3)) < 0.5
    images = generator.integers(0, 60, (count, HEIGHT, WIDTH, 1), np.uint8)
    for corner, (top, left) in enumerate(((0, 0), (0, 4), (4, 0))):
        images[:, top : top + 4, left : left + 4] += (150 * bright[:, corner]).astype(np.uint8)[
            :, None, None, None
        ]
    return images, bright


def write_data(folder: Path, task: str) -> None:
    arrays: dict[str, Any] = {}
    for split, count, seed in (("train", 300, 0), ("test", 80, 1)):
        images, bright = bright_corners(count, seed)
        labels = {
            "multi-label": bright.astype(np.uint8),
            "regression": np.stack([1000.0 + 50 * bright.sum(axis=1), -3.0 * bright[:, 0]], axis=1),
            "embedding": (bright * [1, 2, 4]).sum(axis=1),
        }[task]
        arrays |= {f"{split}_x": images, f"{split}_y": labels}
    classes = {"multi-label": CORNERS, "regression": ("light", "left"), "embedding": tuple("abcdefgh")}
    np.savez(folder / "data.npz", classes=np.array(classes[task]), **arrays)


def recipe_of(folder: Path, task: str) -> str:
    text = ONE_TARGET.replace(
        'kind = "digits"\ntrain_limit = 300', f'kind = "npz"\npath = "data.npz"\ntask = "{task}"'
    ).replace("epochs = 3", "epochs = 8")
    assert "npz" in text
    if task == "multi-label":
        text = text.replace(
            "[measure]",
            f'[[target]]\nname = "{INT8}"\nbudget_ms = 1000\n\n[compile]\nmax_drop = 0.0\n'
            "calibration_images = 40\nfine_tuning_epochs = 1\n\n[measure]",
        )
    if task == "regression":
        space, target = text.index("[space]"), text.index("[[target]]")
        text = 'method = "subgraph"\n' + text[:space] + text[target:]
        text += '\n[subgraph]\nmost_blocks = 12\nproposals = ["importance", "gates"]\n'
        text += "selection = { epochs = 1 }\n"
    if task == "embedding":
        torch.manual_seed(0)
        torch.save(Projection().state_dict(), folder / "teacher.pt")
        start, end = text.index("[[teacher]]"), text.index("[space]")
        teacher = (
            f'[[teacher]]\nkind = "factory"\nfactory = "{__name__}:Projection"\nweights = "teacher.pt"\n\n'
        )
        text = text[:start] + teacher + text[end:]
    return text


@pytest.fixture(scope="module", name="run", params=["multi-label", "regression", "embedding"])
def _run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    task = request.param
    folder = tmp_path_factory.mktemp(task)
    write_data(folder, task)
    sys.modules.setdefault(__name__, sys.modules[Projection.__module__])
    return task, run_recipe(write_recipe(folder, recipe_of(folder, task)), folder)


METRICS = {"multi-label": "mean average precision", "regression": "R2", "embedding": "retrieval@1"}


def test_everything_tells_the_metric_by_its_name(run: tuple[str, dict[str, Any]]) -> None:
    task, document = run
    metric = METRICS[task]
    assert (document["data"]["task"], document["data"]["metric"]) == (task, metric)
    manifest = read_bundle(Path(document["bundle"]))
    assert manifest.classifier is not None
    assert manifest.classifier.task.kind == task
    entry = manifest.targets[0]
    assert entry.accuracy is not None
    assert entry.accuracy.metric == metric
    assert entry.accuracy.share == document["winner"]["targets"][0]["test_accuracy"]
    assert isinstance(manifest.origin, RunOrigin)
    # The corners are easy to see; the student learned them.
    assert entry.accuracy.share > 0.6
    assert manifest.origin.teacher.accuracy > 0.6
    assert f"Artifact&#x27;s {metric}" in Path(document["report"]).read_text("utf-8")
    assert entry.outputs[0].shape == (
        1,
        DIMENSIONS if task == "embedding" else len(manifest.classifier.labels),
    )


def test_the_bundle_verifies_by_its_metric(run: tuple[str, dict[str, Any]]) -> None:
    task, document = run
    ended = run_here("verify", document["bundle"])
    assert ended.returncode == 0, ended.stderr
    assert f"{METRICS[task]} " in ended.stdout


def test_int8_is_judged_by_the_metric_too(run: tuple[str, dict[str, Any]]) -> None:
    task, document = run
    in_int8 = [each for each in document["winner"]["targets"] if each["target"] == INT8]
    assert len(in_int8) == (task == "multi-label")
    for target in in_int8:
        figures = target["int8"]
        assert figures["agreement_with_float"] > 0.8
        assert target["test_accuracy"] > 0.6
        report = Path(document["report"]).read_text("utf-8")
        assert "of the labels are the same as in float" in report


def test_a_teacher_of_numbers_is_cut_like_one_of_classes(run: tuple[str, dict[str, Any]]) -> None:
    task, document = run
    assert (document["recipe"]["method"] == "subgraph") == (task == "regression")
    if task == "regression":
        assert {"structures", "importance", "proposals"} <= {stage["name"] for stage in document["stages"]}
        assert document["winner"]["parameters"] <= document["teacher"]["parameters"]


def test_the_script_says_what_the_outputs_mean(run: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    task, document = run
    bundle = Path(document["bundle"])
    manifest = read_bundle(bundle)
    entry = manifest.targets[0]
    test = read_test(bundle, manifest, entry)
    assert test is not None
    np.save(tmp_path / "images.npy", test.split.images[:5])

    def infer(*arguments: str) -> list[dict[str, Any]]:
        command = [sys.executable, str(bundle / "infer_onnxruntime.py"), "--target", entry.target, *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in ended.stdout.splitlines()]

    (judged,) = infer("--test")
    assert judged["metric"] == METRICS[task]
    assert entry.accuracy is not None
    assert judged["value"] == pytest.approx(entry.accuracy.share, abs=1e-6)
    answers = infer(str(tmp_path / "images.npy"))
    assert len(answers) == 5
    if task == "multi-label":
        for answer in answers:
            shares = answer["probabilities"]
            assert set(shares) == set(CORNERS)
            assert answer["labels"] == [name for name in CORNERS if shares[name] >= 0.5]
    elif task == "regression":
        # In the unit of the data, which is far from 0.
        assert all(900 < each["values"]["light"] < 1250 for each in answers)
    else:
        assert all(np.linalg.norm(each["embedding"]) == pytest.approx(1) for each in answers)
