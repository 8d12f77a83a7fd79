from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from devices.installing import how_to_install
from pipeline.data import DataConfig, Dataset
from pipeline.data.loading import load
from pipeline.data.tensors import batches_of
from pipeline.distill.settings import TrainingSettings
from pipeline.distill.training import accuracy
from pipeline.errors import TeacherError
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.loading import load_teacher
from pipeline.teachers.teacher import Teacher
from pipeline.teachers.weights import weights_bytes
from tests.places import SHARED

FACTORY = "pipeline.teachers.convnet:ConvNet"
SHORT = TrainingSettings(epochs=4, batch_size=16)


def trained(**settings: Any) -> TeacherConfig:
    return TeacherConfig(width=2, depth=1, training=SHORT, **settings)


def loaded(dataset: Dataset, folder: Path, *configs: TeacherConfig, seed: int = 0) -> Teacher:
    return load_teacher(configs, dataset, folder=folder, seed=seed, progress=lambda done, total, name: None)


def from_weights(
    folder: Path, *, seed: int = 0, classes: int = 3, channels: int = 1, **settings: Any
) -> TeacherConfig:
    torch.manual_seed(seed)
    arguments = {"channels": channels, "classes": classes, "width": 2, "depth": 1}
    path = folder / f"w{seed}-{classes}-{channels}.safetensors"
    path.write_bytes(weights_bytes(ConvNet(**arguments)))
    return TeacherConfig(kind="factory", factory=FACTORY, arguments=arguments, weights=path, **settings)


def images_of(dataset: Dataset) -> torch.Tensor:
    return next(batches_of(dataset.test, dataset.preprocessing))


def test_load_teacher_trains_once_and_then_loads_the_same_teacher(dataset: Dataset, tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    arguments: dict[str, Any] = {
        "folder": tmp_path / "t",
        "seed": 0,
        "progress": lambda *call: calls.append(call),
    }
    first = load_teacher([trained()], dataset, **arguments)
    assert calls == [(epoch, 4, "convnet-w2-d1") for epoch in (1, 2, 3, 4)]
    second = load_teacher([trained()], dataset, **arguments)
    assert len(calls) == 4
    assert first.digest == second.digest
    assert torch.equal(first.module(images_of(dataset)), second.module(images_of(dataset)))
    assert sorted(file.suffix for file in (tmp_path / "t").iterdir()) == [".json", ".safetensors"]
    assert [m.history for m in first.members] == [m.history for m in second.members]


def test_load_teacher_trains_another_for_another_seed(dataset: Dataset, tmp_path: Path) -> None:
    first, second = (loaded(dataset, tmp_path / "t", trained(), seed=seed) for seed in (0, 1))
    assert first.digest != second.digest


def test_load_teacher_goes_on_where_it_was_interrupted(dataset: Dataset, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, name: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    epochs: list[int] = []
    arguments: dict[str, Any] = {"folder": tmp_path / "broken", "seed": 0}
    with pytest.raises(KeyboardInterrupt):
        load_teacher([trained()], dataset, progress=interrupt, **arguments)
    resumed = load_teacher(
        [trained()], dataset, progress=lambda done, total, name: epochs.append(done), **arguments
    )
    assert epochs == [3, 4]
    assert resumed.digest == loaded(dataset, tmp_path / "whole", trained()).digest


def test_load_teacher_leaves_the_global_random_state_alone(dataset: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    loaded(dataset, tmp_path, trained())
    assert torch.equal(torch.rand(3), expected)


def test_load_teacher_fine_tunes_loaded_weights_when_asked(dataset: Dataset, tmp_path: Path) -> None:
    plain = loaded(dataset, tmp_path / "t", from_weights(tmp_path))
    tuned = loaded(dataset, tmp_path / "t", from_weights(tmp_path, training=SHORT))
    scores = [
        accuracy(teacher.module, dataset.validation, dataset.preprocessing) for teacher in (plain, tuned)
    ]
    assert scores[1] > scores[0]
    assert plain.digest != tuned.digest


def test_digest_follows_the_content_of_weights_and_not_their_path(dataset: Dataset, tmp_path: Path) -> None:
    config = from_weights(tmp_path)
    assert config.weights is not None
    moved = config.weights.rename(tmp_path / "moved.safetensors")
    renamed = config.model_copy(update={"weights": moved})
    digest = loaded(dataset, tmp_path, renamed).digest
    assert digest == loaded(dataset, tmp_path, from_weights(tmp_path)).digest
    assert digest != loaded(dataset, tmp_path, from_weights(tmp_path, seed=1)).digest


def test_logits_of_an_ensemble_are_the_log_of_the_mean_probability(dataset: Dataset, tmp_path: Path) -> None:
    configs = [from_weights(tmp_path, seed=seed) for seed in range(3)]
    images = images_of(dataset)
    singles = [loaded(dataset, tmp_path, config).module(images) for config in configs]
    expected = torch.stack([logits.softmax(1) for logits in singles]).mean(0)
    ensemble = loaded(dataset, tmp_path, *configs)
    assert torch.allclose(ensemble.module(images).exp(), expected, atol=1e-6)
    assert ensemble.names == ("ConvNet",) * 3


def test_logits_carry_no_gradient_and_leave_eval_mode(dataset: Dataset, tmp_path: Path) -> None:
    teacher = loaded(dataset, tmp_path, from_weights(tmp_path))
    teacher.module.train()
    images = images_of(dataset)
    assert not teacher.member_logits(images).requires_grad
    assert torch.allclose(teacher.member_logits(images[:1]), teacher.member_logits(images)[:, :1], atol=1e-6)


def test_logits_adapt_channels_normalisation_and_size(dataset: Dataset, tmp_path: Path) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    config = from_weights(tmp_path, channels=3, resize=16, mean=mean, std=std)
    config = config.model_copy(update={"channels": 3})
    teacher = loaded(dataset, tmp_path, config)
    bytes_of = torch.from_numpy(dataset.test.images).permute(0, 3, 1, 2).float() / 255
    own = (bytes_of.repeat(1, 3, 1, 1) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    own = functional.interpolate(own, (16, 16), mode="bilinear")
    network: nn.Module = teacher.module.network  # type: ignore[assignment]
    assert torch.allclose(teacher.module(images_of(dataset)), network(own), atol=1e-4)


def test_load_teacher_reads_an_exported_graph_of_fixed_batch(dataset: Dataset, tmp_path: Path) -> None:
    network = ConvNet(1, 3, width=2, depth=1).eval()
    torch.export.save(torch.export.export(network, (torch.rand(1, 1, 8, 8),)), tmp_path / "t.pt2")
    teacher = loaded(dataset, tmp_path, TeacherConfig(kind="pt2", path=tmp_path / "t.pt2"))
    assert torch.allclose(teacher.module(images_of(dataset)), network(images_of(dataset)), atol=1e-5)


def test_load_teacher_gives_both_numbers_when_outputs_differ_from_classes(
    dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(TeacherError, match="has 7 outputs, but the data have 3 classes"):
        loaded(dataset, tmp_path, from_weights(tmp_path, classes=7))


def test_load_teacher_advises_channels_when_the_teacher_wants_colour(
    dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(TeacherError, match="does not take the data's images of 1x8x8") as caught:
        loaded(dataset, tmp_path, from_weights(tmp_path, channels=3))
    assert "channels = 3" in caught.value.fix


def test_load_teacher_advises_resize_when_an_exported_graph_wants_another_size(
    dataset: Dataset, tmp_path: Path
) -> None:
    network = ConvNet(1, 3, width=2, depth=1).eval()
    torch.export.save(torch.export.export(network, (torch.rand(1, 1, 16, 16),)), tmp_path / "t.pt2")
    config = TeacherConfig(kind="pt2", path=tmp_path / "t.pt2")
    with pytest.raises(TeacherError, match="does not take the data's images") as caught:
        loaded(dataset, tmp_path, config)
    assert "(1, 16, 16)" in caught.value.why
    assert loaded(dataset, tmp_path, config.model_copy(update={"resize": 16})).names == ("t",)


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        ("no_such_package.nets:make", {}, "cannot be imported"),
        ("pipeline.teachers.convnet:Absent", {}, "cannot be imported"),
        (FACTORY, {"colour": 1}, "failed"),
        ("builtins:dict", {}, "returned a dict"),
    ],
)
def test_load_teacher_says_why_a_factory_gives_no_network(
    dataset: Dataset, tmp_path: Path, factory: str, arguments: dict[str, Any], message: str
) -> None:
    config = TeacherConfig(kind="factory", factory=factory, arguments=arguments, training=SHORT)
    with pytest.raises(TeacherError, match=message):
        loaded(dataset, tmp_path, config)


def test_load_teacher_says_when_training_diverges(dataset: Dataset, tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=3, batch_size=16, warmup_share=0)
    settings = settings.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TeacherError, match="diverged") as caught:
        loaded(dataset, tmp_path, TeacherConfig(width=2, depth=1, training=settings))
    assert "learning_rate" in caught.value.fix


def test_load_teacher_names_the_extra_when_timm_is_not_installed(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(TeacherError, match="needs the package timm") as caught:
        loaded(dataset, tmp_path, TeacherConfig(kind="timm", model="resnet18"))
    assert caught.value.fix == how_to_install("timm")


@pytest.mark.slow
def test_load_teacher_reproduces_the_accuracy_of_a_published_resnet20(tmp_path: Path) -> None:
    weights = SHARED / "teachers_cifar10" / "resnet20.safetensors"
    if not weights.exists():
        pytest.skip("LATHE_SHARED_DATA has no CIFAR-10 teachers")
    images = SHARED / "cifar10_jpeg" / "cifar10_jpeg_bytes.npz"
    dataset = load(DataConfig(kind="npz", path=images, train_limit=200, test_limit=500), seed=0)
    config = TeacherConfig(
        kind="factory",
        factory="pipeline.teachers.resnet:resnet_cifar",
        weights=weights,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    teacher = loaded(dataset, tmp_path, config)
    # 81.03 % of all 10 000 test images; four standard errors of 500 are 7 points
    assert accuracy(teacher.module, dataset.test, dataset.preprocessing) == pytest.approx(0.81, abs=0.07)
