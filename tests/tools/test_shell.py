"""The scripts that make the virtual environment, on a small project with the layout of this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import pathlib, zipfile

REQUIRED = ""

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "small-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, name), "w") as wheel:
        wheel.writestr("small.pth", str(pathlib.Path.cwd()))
        metadata = "Metadata-Version: 2.1\\nName: small\\nVersion: 1\\nProvides-Extra: quickstart\\n"
        wheel.writestr("small-1.dist-info/METADATA", metadata + REQUIRED)
        wheel.writestr("small-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("small-1.dist-info/entry_points.txt", "[console_scripts]\\nlathe = small:main\\n")
        wheel.writestr("small-1.dist-info/RECORD", "")
    return name
"""
MODULE = "import os, sys\ndef main():\n    print(os.getcwd(), *sys.argv[1:], sep='|')\n"


def _project(folder: Path) -> Path:
    (folder / "tools").mkdir(parents=True)
    for name in ("lathe", "setup.sh"):
        shutil.copy(ROOT / "tools" / name, folder / "tools" / name)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "constraints.txt").write_text("# nothing to pin\n")
    (folder / "backend.py").write_text(BACKEND)
    (folder / "small.py").write_text(MODULE)
    return folder


def _start(
    project: Path, *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [project / "tools" / "lathe", *arguments],
        cwd=cwd,
        env={**os.environ, "LATHE_PYTHON": sys.executable, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(project: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> tuple[int, str, str]:
    process = _start(project, *arguments, cwd=cwd, **environment)
    output, messages = process.communicate(timeout=300)
    return process.returncode, output, messages


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in a path with spaces, set up by two first calls at once."""
    project = _project(tmp_path_factory.mktemp("shell") / "a path with spaces")
    calls = [_start(project, "first"), _start(project, "second")]
    results = [(*call.communicate(timeout=300), call.returncode) for call in calls]
    assert [code for _, _, code in results] == [0, 0], results
    assert [output.split("|")[1:] for output, _, _ in results] == [["first\n"], ["second\n"]]
    messages = "".join(text for _, text, _ in results)
    assert messages.count("lathe: making ") == 1
    assert messages.count("waiting for another installation") <= 1
    return project


@pytest.mark.slow
def test_tools_lathe_starts_without_pip_when_called_again(installed: Path) -> None:
    assert _run(installed, "again", PIP_NO_INDEX="1")[2] == ""


@pytest.mark.slow
def test_tools_lathe_keeps_arguments_and_folder_when_called_through_a_link(
    installed: Path, tmp_path: Path
) -> None:
    bin_folder, elsewhere = tmp_path / "bin", tmp_path / "else where"
    bin_folder.mkdir()
    elsewhere.mkdir()
    (bin_folder / "tools").symlink_to(installed / "tools")
    code, output, messages = _run(bin_folder, "--set", "name=two words", cwd=elsewhere)
    assert (code, output, messages) == (0, f"{elsewhere}|--set|name=two words\n", "")


@pytest.mark.slow
def test_tools_lathe_mends_the_environment_when_an_installation_was_killed(installed: Path) -> None:
    (installed / ".venv" / "lathe-unfinished").touch()
    for stamp in installed.glob(".venv/lathe-stamp-*"):
        stamp.unlink()
    leftover = installed / ".venv" / "leftover"
    leftover.touch()
    code, output, messages = _run(installed, "mended")
    assert code == 0, messages
    assert output.endswith("|mended\n")
    assert not leftover.exists()


@pytest.mark.slow
def test_tools_lathe_installs_again_when_the_project_changes(installed: Path) -> None:
    (installed / "constraints.txt").write_text("# changed\n")
    code, _, messages = _run(installed, "changed")
    assert code == 0, messages
    assert "installing the pinned packages" in messages
    assert "making " not in messages


def test_tools_lathe_names_the_remedy_when_python_is_missing(tmp_path: Path) -> None:
    project = _project(tmp_path / "project")
    code, output, messages = _run(project, LATHE_PYTHON=str(tmp_path / "no-python"))
    assert (code, output) == (1, "")
    assert "is not a Python of version 3.11 or newer" in messages
    assert "Fix: set LATHE_PYTHON" in messages
    assert not (project / ".venv").exists()


def test_tools_lathe_names_the_remedy_when_no_python_is_on_the_path(tmp_path: Path) -> None:
    project = _project(tmp_path / "project")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "env", "dirname", "readlink", "cat"):
        (programs / name).symlink_to(str(shutil.which(name)))
    code, _, messages = _run(project, LATHE_PYTHON="", PATH=str(programs))
    assert code == 1
    assert "no Python of version 3.11 or newer was found" in messages
    assert "python3-venv" in messages


def test_tools_lathe_names_the_package_when_python_cannot_make_environments(tmp_path: Path) -> None:
    project = _project(tmp_path / "project")
    python = tmp_path / "python-of-debian"
    python.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    code, _, messages = _run(project, LATHE_PYTHON=str(python))
    assert code == 1
    assert "cannot make virtual environments" in messages
    assert "apt install python3-venv" in messages


@pytest.mark.slow
def test_tools_lathe_shows_the_words_of_pip_when_the_installation_fails(tmp_path: Path) -> None:
    project = _project(tmp_path / "project")
    requirement = "Requires-Dist: lathe-needs-what-no-index-has\\n"
    (project / "backend.py").write_text(BACKEND.replace('REQUIRED = ""', f'REQUIRED = "{requirement}"'))
    code, _, messages = _run(project, PIP_NO_INDEX="1")
    assert code == 1
    assert "the packages could not be installed" in messages
    assert "No matching distribution found for lathe-needs-what-no-index-has" in messages
    assert "Fix: " in messages
    assert not list(project.glob(".venv/lathe-stamp-*"))


def test_constraints_pin_every_package_once_to_one_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    names = [line.partition("==")[0].lower().replace("_", "-") for line in lines]
    assert all(line.count("==") == 1 for line in lines)
    assert len(names) == len(set(names))
    assert "torch==2.13.0" in lines


@pytest.mark.parametrize(("ci", "reason", "code"), [("true", "", 1), ("true", "needs a GPU", 0), ("", "", 0)])
def test_pytest_fails_on_a_skip_when_ci_could_have_run_it(
    tmp_path: Path, ci: str, reason: str, code: int
) -> None:
    (tmp_path / "test_skipped.py").write_text(
        f"import pytest\n@pytest.mark.skip({reason!r})\ndef test_one(): ...\ndef test_two(): ...\n"
    )
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            str(tmp_path),
        ],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout
