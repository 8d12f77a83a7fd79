from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.recipe.loading import EMBEDDED

PYTHON = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]


def _lathe(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(
        [*PYTHON, *arguments], capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )


def test_help_loads_no_heavy_package() -> None:
    code = "import sys; from pipeline.cli.main import app; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "sqlalchemy", "pydantic", "plotly", "onnx", "litert_torch"} & set(loaded)


def test_version_is_printed() -> None:
    ended = _lathe("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith("lathe ")


def test_no_command_shows_the_help() -> None:
    ended = _lathe()
    assert "run" in ended.stdout + ended.stderr


def test_recipes_lists_the_embedded_ones_and_prints_one() -> None:
    listed = _lathe("recipes")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(EMBEDDED)
    printed = _lathe("recipes", "quickstart")
    assert tomllib.loads(printed.stdout)["name"] == "quickstart"
    assert _lathe("recipes", "nonsense").returncode == 2


@pytest.mark.parametrize("arguments", [["sing"], ["run", "--colour"], ["verify"]])
def test_wrong_usage_ends_with_two(arguments: list[str]) -> None:
    assert _lathe(*arguments).returncode == 2


def test_an_error_says_what_why_and_fix_and_ends_with_its_exit_code(tmp_path: Path) -> None:
    ended = _lathe("run", "--set", "sead=1", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: the recipe has keys that do not exist")
    assert "did you mean 'seed'?" in ended.stderr
    assert "Fix: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_error_is_one_json_document_on_standard_output_when_asked(tmp_path: Path) -> None:
    ended = _lathe("run", "--json", "--set", "target.0.name=host/litert", cwd=tmp_path)
    error = json.loads(ended.stdout)["error"]
    assert error["exit_code"] == ended.returncode == 6
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
def test_an_unknown_target_is_refused_before_any_work(tmp_path: Path, target: str, said: str) -> None:
    ended = _lathe("run", "--set", f"target.0.name={target}", "--work", "w", cwd=tmp_path)
    assert ended.returncode == 6
    assert said in ended.stderr
    assert "Fix: " in ended.stderr
    assert not list(tmp_path.glob("w/stages/*"))


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        (["data.kind=npz", "data.path=absent.npz"], 3, "absent.npz"),
        (["teacher.0.kind=factory", "teacher.0.factory=no.such:thing", "teacher.0.weights=w.pt"], 2, "width"),
    ],
)
def test_bad_input_ends_with_the_code_of_its_kind(
    tmp_path: Path, settings: list[str], code: int, said: str
) -> None:
    arguments = [part for setting in settings for part in ("--set", setting)]
    ended = _lathe("run", *arguments, "--db", str(tmp_path / "l.db"), cwd=tmp_path)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr


def test_an_unwritable_work_folder_ends_with_nine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = _lathe("run", "--work", str(tmp_path / "file" / "work"))
    assert ended.returncode == 9
    assert "--work" in ended.stderr


def test_verify_of_a_folder_that_is_no_bundle_ends_with_eleven(tmp_path: Path) -> None:
    ended = _lathe("verify", str(tmp_path))
    assert ended.returncode == 11
    assert "manifest.json" in ended.stderr
