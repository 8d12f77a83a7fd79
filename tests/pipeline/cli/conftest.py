"""The command line in this process, so that what it imports is imported once and coverage sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline.cli.main

Lathe = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lathe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Lathe:
    """Run a command in an empty folder, as the entry point does: code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lathe", *arguments])
        with pytest.raises(SystemExit) as ended:
            pipeline.cli.main.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run
