"""The examples of docs/guides/build-steps.md run as they stand, with the real gate.

``lathe run`` trains for minutes; a program in its place copies a finished bundle, and its arguments are held
against the real command.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer
import yaml

from pipeline.cli.main import app
from tests.pipeline.tiny_bundles import bundle_content, written_bundle
from tests.places import ROOT

__all__ = ["bundle_content", "written_bundle"]

PAGE = ROOT / "docs" / "guides" / "build-steps.md"
LATHE = """#!{python}
import os, shutil, sys
from pathlib import Path
arguments = sys.argv[1:]
with open({calls!r}, "a") as calls:
    calls.write(" ".join(arguments) + "\\n")
if arguments[0] == "run":
    place = Path(arguments[arguments.index("--work") + 1]) / "bundles" / "model"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree({bundle!r}, place)
    sys.exit()
sys.path.insert(0, {root!r})
from pipeline.cli.main import main
main()
"""


def block(language: str, heading: str, number: int = 0) -> str:
    """A block of code below a heading of the page."""
    section = PAGE.read_text("utf-8").partition(f"### {heading}\n")[2].partition("\n### ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)[number]


class Repository:
    """A repository as the examples take it: recipe, data, the bundle that was shipped, and Lathe."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder, self._calls = folder, folder / "calls.txt"
        program = folder / "vendor" / "lathe" / "tools" / "lathe"
        program.parent.mkdir(parents=True)
        program.write_text(
            LATHE.format(python=sys.executable, calls=str(self._calls), bundle=str(bundle), root=str(ROOT))
        )
        program.chmod(0o755)
        (folder / "model.toml").write_text('name = "model"\n')
        (folder / "data").mkdir()
        (folder / "data" / "images.npz").write_bytes(b"")
        shutil.copytree(bundle, folder / "shipped")

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def calls(self) -> list[str]:
        """The commands of Lathe since the last time, each understood by the real program."""
        text = self._calls.read_text() if self._calls.exists() else ""
        self._calls.unlink(missing_ok=True)
        calls = text.splitlines()
        for call in calls:
            name, *arguments = shlex.split(call)
            command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
            command.make_context(name, arguments)
        return [call.split()[0] for call in calls]

    def touch(self, name: str) -> None:
        """Make a file newer than everything, which is made older."""
        for path in self.folder.rglob("*"):
            before = path.stat().st_mtime - 100
            os.utime(path, (before, before))
        os.utime(self.folder / name)


@pytest.fixture
def repository(tmp_path: Path, written_bundle: Path) -> Repository:
    return Repository(tmp_path / "repository", written_bundle)


def steps(repository: Repository, scripts: list[str], environment: Mapping[str, str]) -> None:
    for script in scripts:
        done = repository.run("bash", "-e", "-o", "pipefail", "-c", script, **environment)
        assert done.returncode == 0, done.stderr


def junit_counts(path: Path) -> tuple[str | None, str | None]:
    root = ElementTree.parse(path).getroot()
    return root.get("tests"), root.get("failures")


@pytest.mark.slow
def test_the_steps_for_github_actions_run(repository: Repository) -> None:
    document = yaml.safe_load(block("yaml", "GitHub Actions"))
    (job,) = document["jobs"].values()
    assert all(set(step) & {"uses", "run"} for step in job["steps"])
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    summary = repository.folder / "summary.md"
    summary.write_text("")
    steps(repository, scripts, {"GITHUB_STEP_SUMMARY": str(summary)})
    assert repository.calls() == ["run", "gate"]
    assert "Gate open" in summary.read_text()
    upload = next(step for step in job["steps"] if "upload-artifact" in step.get("uses", ""))
    assert all((repository.folder / path).exists() for path in upload["with"]["path"].split())


@pytest.mark.slow
def test_the_steps_for_gitlab_run(repository: Repository) -> None:
    job = yaml.safe_load(block("yaml", "GitLab CI"))["model"]
    steps(repository, job["script"], {})
    assert repository.calls() == ["run", "gate"]
    report = repository.folder / job["artifacts"]["reports"]["junit"]
    assert junit_counts(report) == ("4", "0")
    assert all((repository.folder / path).exists() for path in job["artifacts"]["paths"])
    assert job["allow_failure"]["exit_codes"] == [12]


@pytest.mark.slow
def test_the_makefile_builds_nothing_again_that_did_not_change(repository: Repository) -> None:
    (repository.folder / "Makefile").write_text(block("make", "Makefile"))

    def make(code: int = 0) -> list[str]:
        done = repository.run("make")
        assert (done.returncode != 0) == (code != 0), done.stderr
        return repository.calls()

    assert make() == ["run", "gate"]
    assert make() == []
    repository.touch("data/images.npz")
    assert make() == ["run", "gate"]
    repository.touch("shipped/manifest.json")
    assert make() == ["gate"]
    # A closed gate is asked again.
    (repository.folder / "shipped" / "extra").write_text("")
    repository.touch("shipped/manifest.json")
    assert make(2) == ["gate"]
    assert make(2) == ["gate"]


@pytest.mark.slow
def test_the_cmake_function_makes_a_target_of_a_recipe_and_builds_nothing_again_that_did_not_change(
    repository: Repository, tmp_path: Path
) -> None:
    programs = Path(sys.executable).parent
    cmake, ninja = str(programs / "cmake"), str(programs / "ninja")
    (repository.folder / "cmake").mkdir()
    (repository.folder / "cmake" / "Lathe.cmake").write_text(block("cmake", "CMake"))
    (repository.folder / "CMakeLists.txt").write_text(block("cmake", "CMake", 1))
    configure = (cmake, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-S", ".", "-B", "out")
    done = repository.run(*configure)
    assert done.returncode == 0, done.stderr

    def build() -> list[str]:
        done = repository.run(cmake, "--build", "out")
        assert done.returncode == 0, done.stdout + done.stderr
        return repository.calls()

    assert build() == ["run", "gate"]
    assert build() == []
    repository.touch("data/images.npz")
    assert build() == ["run", "gate"]
    repository.touch("model.toml")
    assert build() == ["run", "gate"]
    done = repository.run(cmake, "--install", "out", "--prefix", str(tmp_path / "installed"))
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "installed" / "share" / "model").rglob("model.onnx"))


def test_the_cmake_function_needs_a_recipe(repository: Repository) -> None:
    programs = Path(sys.executable).parent
    script = repository.folder / "script.cmake"
    script.write_text(block("cmake", "CMake") + "lathe_bundle(model)\n")
    done = repository.run(str(programs / "cmake"), "-P", str(script))
    assert done.returncode != 0
    assert "lathe_bundle(model) needs RECIPE" in done.stderr
