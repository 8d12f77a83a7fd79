from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.teachers.config import TeacherConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "train", "weights": "w.pt"}, "does not take weights"),
        ({"kind": "pt2", "path": "t.pt2", "width": 8}, "does not take width"),
        ({"kind": "factory", "weights": "w.pt"}, "needs 'factory'"),
        ({"kind": "factory", "factory": "a:b"}, "random weights"),
        ({"kind": "factory", "factory": "os; system"}, "pattern"),
        ({"kind": "pt2"}, "needs 'path'"),
        ({"kind": "pt2", "path": "t.pt2", "training": {}}, "cannot be trained"),
        ({"kind": "timm"}, "needs 'model'"),
        ({"mean": [0.5]}, "together"),
        ({"mean": [0.5], "std": [0.5, 0.5]}, "together"),
        ({"mean": [0.5], "std": [0.0]}, "above 0"),
        ({"widht": 3}, "extra"),
    ],
)
def test_teacher_config_refuses_keys_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TeacherConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"width": 8, "depth": 1}, "convnet-w8-d1"),
        ({"kind": "factory", "factory": "shop.nets:big_net", "weights": "w.pt"}, "big_net"),
        ({"kind": "pt2", "path": "models/owl.pt2"}, "owl"),
        ({"kind": "timm", "model": "resnet18"}, "resnet18"),
    ],
)
def test_name_says_which_teacher_it_is(settings: dict[str, Any], name: str) -> None:
    assert TeacherConfig.model_validate(settings).name == name


def test_weights_start_at_the_recipe_folder_when_relative(tmp_path: Path) -> None:
    document = {"kind": "factory", "factory": "a:b", "weights": "w.pt"}
    config = TeacherConfig.model_validate(document, context={"base": tmp_path})
    assert config.weights == tmp_path / "w.pt"
    assert config.content() == TeacherConfig.model_validate(document).content()


def test_teacher_config_is_read_without_torch() -> None:
    code = "import sys, pipeline.teachers, pipeline.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
