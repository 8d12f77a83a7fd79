"""Which code a teacher of a factory depends on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typing_extensions

from pipeline.teachers.code import _sources, code_digest
from pipeline.teachers.config import TeacherConfig

FILES = {
    "my_factory.py": "import json\nfrom my_helpers import width\n",
    "my_helpers.py": "def width():\n    import my_deeper\n    return my_deeper.WIDTH\n",
    "my_deeper.py": "import my_factory\nWIDTH = 3\n",
    "my_package/__init__.py": "from . import part\nimport my_helpers\n",
    "my_package/part.py": "",
    "my_unused.py": "",
    "my_broken.py": "def\n",
    "json.py": "",
}


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def digest(factory: str) -> str | None:
    return code_digest(TeacherConfig(kind="factory", factory=factory, weights=Path("weights.pt")))


@pytest.mark.parametrize(
    ("factory", "changed", "counts"),
    [
        ("my_factory:make", "my_factory.py", True),
        ("my_factory:make", "my_helpers.py", True),
        ("my_factory:make", "my_deeper.py", True),
        ("my_factory:make", "my_unused.py", False),
        ("my_factory:make", "my_package/part.py", False),
        ("my_package:make", "my_package/part.py", True),
        ("my_package.part:make", "my_package/__init__.py", True),
        ("my_package.part:make", "my_helpers.py", True),
        ("my_broken:make", "my_broken.py", True),
    ],
)
def test_a_factory_depends_on_what_it_imports_from_its_own_folder(
    folder: Path, factory: str, changed: str, counts: bool
) -> None:
    before = digest(factory)
    assert before is not None
    (folder / changed).write_text("one = 1\n")
    assert (digest(factory) != before) is counts


def test_the_place_of_the_folder_does_not_count(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = digest("my_factory:make")
    other = tmp_path_factory.mktemp("other")
    for name in FILES:
        (other / name).parent.mkdir(exist_ok=True)
        (folder / name).rename(other / name)
    sys.path.insert(0, str(other))
    try:
        assert digest("my_factory:make") == before
    finally:
        sys.path.remove(str(other))


def test_an_installed_package_counts_without_those_beside_it() -> None:
    assert digest("typer:Typer") is not None
    assert [path.name for path in _sources("typing_extensions", Path(typing_extensions.__file__).parent)] == [
        "typing_extensions.py"
    ]


@pytest.mark.parametrize("factory", ["no_such_package:make", "pipeline.teachers.resnet:resnet_cifar"])
def test_no_code_is_found_of_what_is_missing_or_lathes_own(factory: str) -> None:
    assert digest(factory) is None
