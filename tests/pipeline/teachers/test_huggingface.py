from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from devices.installing import how_to_install
from pipeline.data import Dataset
from pipeline.data.base import Preprocessing
from pipeline.distill.settings import TrainingSettings
from pipeline.errors import TeacherError
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.huggingface import build_from_folder
from pipeline.teachers.loading import load_teacher
from pipeline.teachers.teacher import AdaptedNetwork, Teacher
from tests.pipeline.teachers.tiny_transformers import resnet, saved, vit

SHORT = TrainingSettings(epochs=1, batch_size=16)


def _loaded(
    folder: Path, dataset: Dataset, tmp_path: Path, told: list[str] | None = None, **keys: Any
) -> Teacher:
    config = TeacherConfig(kind="huggingface", path=folder, **keys)
    tell = (lambda line: None) if told is None else told.append
    return load_teacher(
        [config], dataset, folder=tmp_path / "own", seed=0, progress=lambda *_: None, tell=tell
    )


def _built(folder: Path, **keys: Any) -> TeacherConfig:
    return build_from_folder(
        TeacherConfig(kind="huggingface", path=folder, **keys), 3, lambda line: None
    ).config


@pytest.mark.parametrize("make", [lambda: vit("abc"), lambda: resnet(3)], ids=["ViT", "ResNet"])
def test_a_folder_gives_the_logits_that_transformers_gives(
    make: Any, dataset: Dataset, tmp_path: Path
) -> None:
    from transformers import AutoImageProcessor

    network = make()
    folder = saved(network, tmp_path / "teacher", image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4])
    teacher = _loaded(folder, dataset, tmp_path)
    images = dataset.test.images
    grey = [Image.fromarray(each[..., 0]).convert("RGB") for each in images]
    given = AutoImageProcessor.from_pretrained(folder)(images=grey, return_tensors="pt")["pixel_values"]
    shown = torch.from_numpy(dataset.preprocessing(images)).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert torch.allclose(teacher.module(shown), network(given).logits, atol=1e-4)
    assert teacher.names == ("teacher",)


def test_the_processor_decides_size_normalisation_and_order_of_channels(tmp_path: Path) -> None:
    from transformers import MobileViTImageProcessor

    folder = saved(vit("abc"), tmp_path / "a", 16, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    found = _built(folder)
    assert (found.resize, found.channels, found.channel_order) == (16, 3, "rgb")
    assert found.mean == pytest.approx((0.1, 0.2, 0.3), abs=1e-5)
    assert found.std == pytest.approx((0.4, 0.5, 0.6), abs=1e-5)
    changed = _built(folder, resize=8, mean=(0.5,), std=(0.5,))
    assert (changed.resize, changed.mean) == (8, (0.5,))
    size, crop = {"shortest_edge": 12}, {"height": 10, "width": 10}
    MobileViTImageProcessor(size=size, crop_size=crop).save_pretrained(folder)
    found = _built(folder)
    assert (found.resize, found.channel_order) == (10, "bgr")
    assert found.std == pytest.approx((1.0, 1.0, 1.0))


def test_blue_first_is_shown_blue_first() -> None:
    config = TeacherConfig(channel_order="bgr", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    preprocessing = Preprocessing((0.5, 0.6, 0.7), (0.3, 0.2, 0.1))
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    adapted = AdaptedNetwork(torch.nn.Identity(), config, preprocessing)
    shown = adapted.prepared(torch.from_numpy(preprocessing(images)).permute(0, 3, 1, 2))
    own = (images[..., ::-1] / 255 - np.array(config.mean)) / np.array(config.std)
    assert np.allclose(shown.permute(0, 2, 3, 1), own, atol=1e-5)


def test_classes_are_found_by_their_names_in_the_folder(dataset: Dataset, tmp_path: Path) -> None:
    told: list[str] = []
    network = vit(["2", "x", "0", "1"])
    teacher = _loaded(saved(network, tmp_path / "t"), dataset, tmp_path, told)
    shown = torch.from_numpy(dataset.preprocessing(dataset.test.images)).permute(0, 3, 1, 2)
    with torch.no_grad():
        prepared = teacher.members[0].network.prepared(shown)
        expected = network(prepared).logits[:, [2, 3, 0]]
        assert torch.allclose(teacher.module(shown), expected, atol=1e-5)
    assert "taken by name" in told[0]


def test_several_outputs_for_a_class_add_their_probabilities(dataset: Dataset, tmp_path: Path) -> None:
    network = vit("abcde")
    classes = {"0": ("a", "c"), "1": "e", "2": (1,)}
    teacher = _loaded(saved(network, tmp_path / "t"), dataset, tmp_path, classes=classes)
    shown = torch.from_numpy(dataset.preprocessing(dataset.test.images)).permute(0, 3, 1, 2)
    with torch.no_grad():
        whole = network(teacher.members[0].network.prepared(shown)).logits.softmax(1)
        got = teacher.module(shown).softmax(1)
    expected = torch.stack([whole[:, 0] + whole[:, 2], whole[:, 4], whole[:, 1]], 1)
    assert torch.allclose(got, expected / expected.sum(1, keepdim=True), atol=1e-5)


def test_a_teacher_that_is_trained_here_gets_a_head_for_the_classes(dataset: Dataset, tmp_path: Path) -> None:
    told: list[str] = []
    teacher = _loaded(saved(vit("abcde"), tmp_path / "t"), dataset, tmp_path, told, training=SHORT)
    assert teacher.module(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert any("new weights in classifier.bias, classifier.weight" in line for line in told)


def test_weights_of_torch_are_read_where_there_are_no_others(dataset: Dataset, tmp_path: Path) -> None:
    network = vit("abc")
    folder = saved(network, tmp_path / "t")
    before = _loaded(folder, dataset, tmp_path).digest
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert _loaded(folder, dataset, tmp_path).digest == before


class _Code:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("pwned"),)


def _spoil(folder: Path, how: str) -> None:
    match how:
        case "no weights":
            (folder / "model.safetensors").unlink()
        case "code":
            (folder / "modeling.py").write_text("raise SystemExit")
        case "asks for code":
            text = json.loads((folder / "config.json").read_text())
            text["auto_map"] = {"AutoModelForImageClassification": "modeling.Net"}
            (folder / "config.json").write_text(json.dumps(text))
        case "pickle":
            (folder / "model.safetensors").unlink()
            torch.save({"a": _Code()}, folder / "pytorch_model.bin")
        case "a pipe":
            os.mkfifo(folder / "tokenizer.json")
        case "a long description":
            (folder / "more.json").write_bytes(b" " * 16_000_001)
        case "packed":
            (folder / "model.safetensors").unlink()
            with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("archive/data/0", bytes(100 << 20))
        case "no head":
            saved(vit("abc").vit, folder, None)
        case "no processor":
            (folder / "preprocessor_config.json").unlink()
        case "no configuration":
            (folder / "config.json").unlink()
        case "cut":
            weights = folder / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:900])
        case "text":
            (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no weights", "has no weights"),
        ("code", "code of its own, which is never run"),
        ("asks for code", "'auto_map', which names code"),
        ("pickle", "cannot open"),
        ("a pipe", "tokenizer.json is not a regular file"),
        ("a long description", "more.json has more than 16,000,000 bytes"),
        ("packed", "suspiciously small"),
        ("no head", "missing: classifier.bias, classifier.weight"),
        ("no processor", "no preprocessor_config.json"),
        ("no configuration", "no config.json"),
        ("cut", "cannot open"),
        ("text", "cannot open"),
    ],
)
def test_a_folder_that_is_no_teacher_is_refused_with_the_reason(
    how: str, said: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = saved(vit("abc"), tmp_path / "t")
    _spoil(folder, how)
    with pytest.raises(TeacherError) as caught:
        _loaded(folder, dataset, tmp_path)
    assert said in str(caught.value)
    assert caught.value.fix
    assert not (tmp_path / "pwned").exists()


def test_a_missing_folder_and_a_model_that_is_not_in_the_cache_are_named(
    dataset: Dataset, tmp_path: Path
) -> None:
    from pipeline.teachers.folders import folder_in_cache

    with pytest.raises(TeacherError, match="no teacher of transformers"):
        _loaded(tmp_path / "absent", dataset, tmp_path)
    with pytest.raises(TeacherError, match="'made/up' is not in the cache") as caught:
        folder_in_cache("made/up")
    assert "hf download made/up" in caught.value.fix


@pytest.mark.parametrize("kind", ["huggingface", "torchvision"])
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    kind: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = {"huggingface": "transformers", "torchvision": "torchvision"}[kind]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.models", None)
    keys: dict[str, Any] = {"path": tmp_path} if kind == "huggingface" else {"model": "resnet18"}
    config = TeacherConfig(kind=kind, training=SHORT, **keys)  # type: ignore[arg-type]
    with pytest.raises(TeacherError, match=f"needs the package {package}") as caught:
        load_teacher([config], dataset, folder=tmp_path / "own", seed=0, progress=lambda *_: None)
    assert caught.value.fix == how_to_install(kind)
