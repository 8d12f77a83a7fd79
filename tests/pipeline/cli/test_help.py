"""Help says what every command and option is for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from pipeline.cli.main import app
from tests.pipeline.cli.conftest import Lathe


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*words, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_option_has_help(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert command.help
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith((".", "]")), parameter.help


@pytest.mark.parametrize("words", [words for words in COMMANDS if hasattr(COMMANDS[words], "commands")])
def test_lists_of_commands_cut_no_sentence(
    lathe: Lathe, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, output, _ = lathe(*words, "--help")
    assert code == 0
    assert "..." not in output.partition("Commands:")[2]


def test_options_stand_in_their_groups_and_examples_at_the_end(lathe: Lathe) -> None:
    output = lathe("profile", "--help")[1]
    lines = [line for line in output.splitlines() if not line.startswith(("   ", "  -"))]
    titles = [line for line in lines if line.endswith(":")]
    assert titles == ["Arguments:", "Inputs:", "Measuring:", "Options:", "  Examples:"]
    assert output.splitlines()[-1].strip().startswith("lathe profile ")


@pytest.mark.parametrize("words", ["run", "search", "verify", "profile", "compare", "table build"])
def test_examples_are_command_lines_that_are_understood(words: str) -> None:
    command = COMMANDS[tuple(words.split())]
    for line in command.epilog.splitlines()[2:]:
        arguments = line.replace("'", "").split()[1 + len(words.split()) :]
        assert command.make_context(words, arguments)
