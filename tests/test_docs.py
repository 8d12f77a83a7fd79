"""The documentation tells the truth: links resolve; exit codes, recipe keys and commands are the code's."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import devices.errors
import latency_db.errors
import pipeline.errors
from devices.errors import LatheError
from tests.places import ROOT
from tools import generate_error_pages

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _without_code(page.read_text("utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _tables(page: Path) -> list[list[list[str]]]:
    """Every table of a page as rows of cells, heading first, ruler left out."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", page.read_text("utf-8"), flags=re.MULTILINE)
    return [
        [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in block.splitlines()
            if "---" not in line
        ]
        for block in blocks
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for link in LINK.findall(_without_code(page.read_text("utf-8"))):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), f"{link} leaves the project"
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in _anchors(target), f"{link} names no heading"


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        for link in LINK.findall(_without_code(page.read_text("utf-8"))):
            if not link.startswith("http"):
                waiting.append((page.parent / link.partition("#")[0]).resolve() if link[0] != "#" else page)
    assert set(PAGES) <= reached


def test_exit_codes_in_docs_are_those_of_the_errors() -> None:
    modules = (devices.errors, latency_db.errors, pipeline.errors)
    errors = {
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, LatheError)
    }
    documented = {
        (name, int(code.partition("]")[0].strip("[")))
        for code, names, _ in _tables(ROOT / "docs" / "exit-codes" / "index.md")[0][1:]
        for name in re.findall(r"`(\w+)`", names)
    }
    assert documented == {(kind.__name__, kind.exit_code) for kind in errors}


def _models(annotation: Any) -> set[type[BaseModel]]:
    """All pydantic models that a type reaches, itself included."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        if not issubclass(annotation, BaseModel):
            return set()
        inner = (_models(field.annotation) for field in annotation.model_fields.values())
        return {annotation}.union(*inner)
    return set().union(*(_models(part) for part in typing.get_args(annotation)))


def _default(model: type[BaseModel], key: str) -> str | None:
    """What the docs say of a key's default; None where any words will do."""
    field = model.model_fields[key]
    if field.is_required() or (key == "kind" and len(typing.get_args(field.annotation)) == 1):
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or (
        isinstance(value, tuple) and value and isinstance(value[0], BaseModel)
    ):
        return None
    return "none" if value is None else f"`{json.dumps(value)}`"


def test_recipe_keys_in_docs_are_those_of_the_code_with_their_defaults() -> None:
    from pipeline.recipe.loading import Recipe

    documented = {
        frozenset(row[0].strip("`") for row in table[1:]): {row[0].strip("`"): row[1] for row in table[1:]}
        for table in _tables(ROOT / "docs" / "reference" / "recipes.md")
        if table[0][:2] == ["key", "default"]
    }
    models = _models(Recipe)
    assert set(documented) == {frozenset(model.model_fields) for model in models}
    for model in models:
        defaults = documented[frozenset(model.model_fields)]
        for key, said in defaults.items():
            expected = _default(model, key)
            assert expected in (None, said), f"{model.__name__}.{key}"


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("generate_command_reference", "reference"),
        ("generate_device_matrix", "matrix"),
        ("generate_recipe_keys", "keys"),
    ],
)
def test_generated_pages_are_up_to_date(name: str, page: str) -> None:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.TARGET.read_text("utf-8") == getattr(generator, page)(), (
        f"run .venv/bin/python tools/{name}.py"
    )


def test_messages_on_the_pages_of_exit_codes_are_those_of_the_code() -> None:
    for path, text in generate_error_pages.pages().items():
        assert path.read_text("utf-8") == text, "run .venv/bin/python tools/generate_error_pages.py"


def test_every_exit_code_but_success_has_a_page() -> None:
    codes = re.findall(r"^\| \[?(\d+)", (ROOT / "docs" / "exit-codes" / "index.md").read_text("utf-8"), re.M)
    pages = {path.stem: path for path in (ROOT / "docs" / "exit-codes").glob("[0-9]*.md")}
    assert set(pages) == {f"{int(code):02d}" for code in codes} - {"00"}
    for stem, path in pages.items():
        assert path.read_text("utf-8").startswith(f"# Exit code {int(stem)}: ")


def test_errors_that_are_explained_exist() -> None:
    docs = ROOT / "docs"
    explained = re.findall(r"^### `(.+)`$", (docs / "troubleshooting.md").read_text("utf-8"), re.M)
    (table,) = (table for table in _tables(docs / "devices" / "connecting.md") if table[0][0] == "error")
    explained += [text for row in table[1:] for text in re.findall(r"`([^`]+)`", row[0])]
    assert len(explained) > 40
    known = [
        re.compile(".+".join(map(re.escape, message.what.split("…"))))
        for message in generate_error_pages.messages()
    ]
    unknown = [text for text in explained if not any(each.fullmatch(text) for each in known)]
    assert not unknown


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_fetches_nothing_from_the_network(tmp_path: Path) -> None:
    config = ROOT / "docs" / "site" / "mkdocs.yml"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", config, "-d", tmp_path]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    fetched = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
    for page in pages:
        text = page.read_text("utf-8")
        assert not [tag for tag in fetched.findall(text) if 'rel="canonical"' not in tag], page.name


def test_lists_start_after_a_blank_line_as_the_site_needs() -> None:
    for page in PAGES:
        lines = _without_code(page.read_text("utf-8")).splitlines()
        for above, line in itertools.pairwise(lines):
            starts = re.match(r"(?:[-*]|1\.) ", line)
            assert not starts or not above or re.match(r"\s*(?:[-*]|\d+\.) |  ", above), (
                f"{page.name}: {line}"
            )


def test_files_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"\b(?:devices|latency_db|pipeline|tests)/[\w/]+(?:\.py)?", text)
    assert len(named) > 25
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 80
