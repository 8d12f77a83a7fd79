from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.data import DataConfig


def test_path_starts_at_the_recipe_folder_when_relative(tmp_path: Path) -> None:
    document = {"kind": "npz", "path": "images.npz"}
    config = DataConfig.model_validate(document, context={"base": tmp_path})
    assert config.path == tmp_path / "images.npz"


def test_path_is_kept_when_absolute(tmp_path: Path) -> None:
    document = {"kind": "npz", "path": str(tmp_path / "images.npz")}
    assert (
        DataConfig.model_validate(document, context={"base": Path("/elsewhere")}).path
        == tmp_path / "images.npz"
    )


def test_data_config_refuses_a_kind_without_its_path() -> None:
    with pytest.raises(ValidationError, match="needs 'path'"):
        DataConfig(kind="folder")


def test_data_config_refuses_a_path_when_the_kind_takes_none() -> None:
    with pytest.raises(ValidationError, match="takes no path"):
        DataConfig(kind="digits", path=Path("x"))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_data_config_refuses_a_share_that_leaves_a_split_empty(share: float) -> None:
    with pytest.raises(ValidationError):
        DataConfig(kind="digits", validation=share)
