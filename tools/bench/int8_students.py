"""What int8 costs a network, and what fine-tuning with fake quantisation gives back.

    python tools/bench/int8_students.py WEIGHTS DATA --depth 20 > int8_resnet20.json

WEIGHTS is a safetensors file of a CIFAR ResNet, DATA an ``.npz`` as a recipe takes it. The network is first
fine-tuned in float, since the images are not those that it was trained on. Then it is quantised, and
fine-tuned once more in two ways with the same images, epochs, losses and teacher, which is the network in
float: with fake quantisation, and, for comparison, in float. Every accuracy is that of the finished file on
its runtime.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from devices.host import temporary_folder
from devices.requests import predict
from devices.target import Target
from pipeline.compile import compile_artifact
from pipeline.data.base import Dataset
from pipeline.data.config import DataConfig
from pipeline.data.loading import load
from pipeline.distill.fake_quantisation import fine_tune_in_int8
from pipeline.distill.settings import DistillationSettings, TrainingSettings
from pipeline.distill.targets import LiveTargets
from pipeline.distill.training import accuracy, fit
from pipeline.export.base import format_of
from pipeline.export.network import export_network
from pipeline.target_verdict import in_layout
from pipeline.teachers.resnet import resnet_cifar

TARGETS = ("host/onnxruntime:int8@1", "host/litert:int8@1")
CALIBRATION = 128
SHAPE = (3, 32, 32)


class Teacher:
    """A network that teaches."""

    def __init__(self, network: nn.Module) -> None:
        self.module = copy.deepcopy(network).eval().requires_grad_(False)

    def member_logits(self, images: torch.Tensor) -> torch.Tensor:
        """``(1, N, classes)``."""
        with torch.no_grad():
            return self.module(images)[None]


def calibration(dataset: Dataset) -> np.ndarray:
    """Preprocessed images ``(N, H, W, C)``."""
    chosen = np.random.default_rng(0).permutation(len(dataset.train))[:CALIBRATION]
    return dataset.preprocessing(dataset.train.images[chosen])


def in_int8(network: nn.Module, dataset: Dataset) -> dict[str, float]:
    """Accuracy of the finished files on the test split, by target."""
    found, test = {}, dataset.test
    with temporary_folder("int8") as folder:
        for text in TARGETS:
            target = Target.parse(text)
            fmt = format_of(target)
            exported = export_network(network, SHAPE, fmt.in_float, folder / f"network{fmt.suffix}")
            inputs = in_layout(calibration(dataset), fmt.layout)
            artifact = compile_artifact(exported, target, folder / "compiled", calibration=inputs)
            images = in_layout(dataset.preprocessing(test.images), fmt.layout)
            answers = predict(artifact.path, images, target).argmax(axis=1)
            found[text] = float((answers == test.labels).mean())
    return found


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--test", type=int, default=4000)
    parser.add_argument("--float-epochs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    config = DataConfig(kind="npz", path=given.data, train_limit=given.train, test_limit=given.test)
    dataset = load(config, seed=given.seed)
    network = resnet_cifar(given.depth, 10)
    network.load_state_dict(load_file(given.weights), strict=False)
    adapting = TrainingSettings(
        epochs=given.float_epochs, learning_rate=0.02, batch_size=128, augment="crop-flip"
    )
    fit(network, dataset, adapting, seed=given.seed)
    in_float = accuracy(network, dataset.test, dataset.preprocessing)
    result = {"given": {name: str(value) for name, value in vars(given).items()}, "float": in_float}
    result |= {"post_training": in_int8(network, dataset)}
    settings = DistillationSettings(
        epochs=given.epochs, learning_rate=0.005, batch_size=64, augment="crop-flip", patience=given.epochs
    )
    teacher = LiveTargets(Teacher(network))
    plain, tuned = copy.deepcopy(network), copy.deepcopy(network)
    fit(plain, dataset, settings, seed=given.seed, targets=teacher)
    result["tuned_in_float"] = {
        "float": accuracy(plain, dataset.test, dataset.preprocessing),
        **in_int8(plain, dataset),
    }
    images = torch.from_numpy(in_layout(calibration(dataset), "NCHW"))
    fine_tune_in_int8(
        tuned, dataset, settings, seed=given.seed, targets=teacher, calibration=images, goal=1.1
    )
    result["tuned_for_int8"] = {
        "float": accuracy(tuned, dataset.test, dataset.preprocessing),
        **in_int8(tuned, dataset),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
