from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.recipe.loading import EMBEDDED
from tests.pipeline.cli.conftest import Lathe


def test_help_loads_no_heavy_package() -> None:
    code = "import sys; from pipeline.cli.main import app; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "sqlalchemy", "pydantic", "plotly", "onnx", "litert_torch"} & set(loaded)


def test_version_is_printed(lathe: Lathe) -> None:
    code, output, _ = lathe("--version")
    assert code == 0
    assert output.startswith("lathe ")


def test_recipes_lists_the_embedded_ones_and_prints_one(lathe: Lathe) -> None:
    listed = lathe("recipes")[1]
    names, descriptions = zip(*(line.split(maxsplit=1) for line in listed.splitlines()), strict=True)
    assert names == EMBEDDED
    assert all(description.endswith(".") for description in descriptions)
    assert len({line.index(text) for line, text in zip(listed.splitlines(), descriptions, strict=True)}) == 1
    assert tomllib.loads(lathe("recipes", "quickstart")[1])["name"] == "quickstart"
    assert lathe("recipes", "nonsense")[0] == 2


def test_an_error_says_what_why_and_fix_and_ends_with_its_exit_code(lathe: Lathe) -> None:
    code, output, messages = lathe("run", "--set", "sead=1")
    assert code == 2
    assert output == ""
    assert messages.startswith("error: the recipe has keys that do not exist")
    assert "did you mean 'seed'?" in messages
    assert "Fix: " in messages
    assert "Traceback" not in messages


def test_an_error_is_one_json_document_on_standard_output_when_asked(lathe: Lathe) -> None:
    code, output, _ = lathe("run", "--json", "--set", "target.0.name=host/litert")
    error = json.loads(output)["error"]
    assert error["exit_code"] == code == 6
    assert "is not a target" in error["what"]
    assert error["fix"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("mars/litert:fp32@1", "mars"),
        ("host/abacus:fp32@1", "abacus"),
        ("host/litert:fp7@1", "fp7"),
        ("host/litert:fp32@0", "0 threads"),
    ],
)
def test_an_unknown_target_is_refused_before_any_work(
    lathe: Lathe, tmp_path: Path, target: str, said: str
) -> None:
    code, _, messages = lathe("run", "--set", f"target.0.name={target}", "--work", "w")
    assert code == 6
    assert said in messages
    assert "Fix: " in messages
    assert not list(tmp_path.glob("w/stages/*"))


@pytest.mark.parametrize(
    ("settings", "expected", "said"),
    [
        (["data.kind=npz", "data.path=absent.npz"], 3, "absent.npz"),
        (
            ["teacher.0.kind=factory", "teacher.0.factory=no.such:thing", "teacher.0.weights=w.pt"],
            4,
            "no.such",
        ),
    ],
)
def test_bad_input_ends_with_the_code_of_its_kind(
    lathe: Lathe, settings: list[str], expected: int, said: str
) -> None:
    code, _, messages = lathe(
        "run", *(part for setting in settings for part in ("--set", setting)), "--db", "l.db"
    )
    assert code == expected, messages
    assert said in messages


def test_an_unwritable_work_folder_ends_with_nine(lathe: Lathe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, messages = lathe("run", "--work", str(tmp_path / "file" / "work"))
    assert code == 9
    assert "--work" in messages
