"""Every command ends with a documented exit code, and with ``--json`` with exactly one JSON document."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.cli.main import app
from pipeline.errors import UsageError
from tests.pipeline.cli.conftest import Lathe


def commands(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that has ``--json``."""
    command = command or typer.main.get_command(app)
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*words, name))
    if any("--json" in parameter.opts for parameter in command.params):
        yield words


COMMANDS = list(commands())

# What each cannot do, after its words; the file "bad" holds no model, recipe, bundle or database.
IMPOSSIBLE = {
    ("run",): "bad",
    ("search",): "bad",
    ("compile",): "bad --target host",
    ("verify",): ".",
    ("gate",): ". --max-size 1",
    ("sign",): ". --key bad",
    ("callers",): ". examples",
    ("profile",): "bad --target host/onnxruntime:fp32@1",
    ("compare",): "bad bad --target host/onnxruntime:fp32@1",
    ("devices", "list"): "",
    ("devices", "watch"): "--once",
    ("devices", "check"): "--all --all host",
    ("devices", "add"): "board --ssh host --adb serial",
    ("devices", "trust"): "",
    ("devices", "describe"): "nowhere",
    ("devices", "health"): "nowhere --db bad",
    ("db", "info"): "--db bad",
    ("db", "query"): "--db bad",
    ("db", "merge"): "bad",
    ("db", "export"): "rows.csv --db bad",
    ("db", "import"): "bad.csv",
    ("db", "check"): "--db bad",
    ("db", "gc"): "--db bad",
    ("table", "build"): "--target host/nothing",
    ("table", "show"): "bad.json",
    ("table", "verify"): "--target host/nothing",
    ("table", "diff"): "bad.json bad.json",
    ("table", "measure"): "bad --target host/litert",
    ("table", "predict"): "bad.json",
    ("table", "transfer"): "--from bad.json --to host/nothing",
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_wrong_usage_is_one_json_document(lathe: Lathe, words: tuple[str, ...]) -> None:
    code, output, messages = lathe(*words, "--json", "--no-such-option")
    error = json.loads(output)["error"]
    assert code == error["exit_code"] == 2
    assert "--no-such-option" in error["what"]
    assert error["fix"] == f"see lathe {' '.join(words)} --help"
    assert error["what"] in messages


@pytest.fixture(autouse=True)
def _nothing_of_use(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"this is nothing of use" * 100)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_what_cannot_be_done_is_one_json_document(lathe: Lathe, words: tuple[str, ...]) -> None:
    code, output, _ = lathe(*words, *IMPOSSIBLE[words].split(), "--json")
    document = json.loads(output)
    if words not in (("devices", "list"), ("devices", "watch")):
        assert code
        assert document.get("error", {"exit_code": code})["exit_code"] == code


@pytest.mark.parametrize("words", [("recipes",), ("db",), ("nonsense",), ()], ids=" ".join)
def test_an_error_is_one_document_where_json_is_no_option(lathe: Lathe, words: tuple[str, ...]) -> None:
    code, output, _ = lathe(*words, "--json")
    assert json.loads(output)["error"]["exit_code"] == code == 2


def test_a_fault_of_lathe_is_one_json_document(lathe: Lathe, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nothing to share")

    monkeypatch.setattr("pipeline.cli.db.command.open_store", fail)
    code, output, messages = lathe("db", "info", "--json")
    error = json.loads(output)["error"]
    assert code == error["exit_code"] == 1
    assert "nothing to share" in error["what"]
    assert "Traceback" in messages


@pytest.mark.parametrize("words", [("verify",), ("profile", "--target", "host/onnxruntime")])
def test_a_text_that_no_file_can_have_as_name_is_wrong_usage(lathe: Lathe, words: tuple[str, ...]) -> None:
    code, output, _ = lathe(*words, "x" * 5000, "--json")
    assert code == UsageError.exit_code
    assert "too long for the name of a file" in json.loads(output)["error"]["what"]


def test_a_folder_that_is_no_bundle_does_not_hold(lathe: Lathe) -> None:
    code, output, messages = lathe("verify", ".", "--json")
    document = json.loads(output)
    assert code == document["error"]["exit_code"] == 11
    assert document["holds"] is False
    assert document["bundle"] == "."
    assert "manifest.json" in messages


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(["tabel"], "table"), (["run", "--wrok", "w"], "--work"), (["db", "inf"], "info")],
)
def test_a_mistyped_word_is_answered_with_what_may_be_meant(
    lathe: Lathe, arguments: list[str], meant: str
) -> None:
    code, output, messages = lathe(*arguments)
    assert code == 2
    assert output == ""
    assert meant in messages.splitlines()[0]


@pytest.mark.parametrize("arguments", [[], ["db"], ["table"], ["devices"]], ids=" ".join)
def test_without_a_command_the_help_is_shown(lathe: Lathe, arguments: list[str]) -> None:
    code, output, messages = lathe(*arguments)
    assert (code, output) == (2, "")
    assert messages.startswith("Usage: ")


@pytest.mark.parametrize("arguments", [["profile", "--help"], ["db", "info", "--json"]])
def test_a_closed_pipe_ends_a_command_quietly(arguments: list[str]) -> None:
    program = [sys.executable, "-c", "from pipeline.cli.main import main; main()", *arguments]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
