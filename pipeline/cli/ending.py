"""How every command ends: with its documented exit code, its error told once and in the documented form."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

import typer
from typer.exceptions import TyperException

from devices.errors import LatheError
from pipeline.cli.output import print_error
from pipeline.errors import UsageError

CLOSED_PIPE = 141
"""As a shell tells of a program that SIGPIPE ended."""


def exit_code_of(command: Callable[[], None], *, as_json: bool) -> int:
    """Run a command to its end, tell of its error if it has one, and give the exit code.

    Args:
        command: what to run; it may raise anything, and only ``Interrupted`` comes through.
        as_json: whether an error is also a JSON document on standard output.
    """
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read the output has gone. Python would complain when it closes standard output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except typer.Exit as ended:
        return ended.exit_code
    except LatheError as error:
        return _told(error, as_json=as_json)
    except TyperException as error:
        return _told(_usage_error(error), as_json=as_json)
    except Exception as error:
        traceback.print_exc()
        return _told(
            LatheError(
                f"unexpected {type(error).__name__}: {error}",
                why="this is a fault of Lathe, the lines above say where",
                fix="run the same command again, it continues from there; report the fault if it comes back",
            ),
            as_json=as_json,
        )
    return 0


def _told(error: LatheError, *, as_json: bool) -> int:
    try:
        print_error(error, as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return error.exit_code


def _usage_error(error: TyperException) -> UsageError:
    context = getattr(error, "ctx", None)
    command = "lathe" if context is None else context.command_path
    return UsageError(error.format_message(), fix=f"see {command} --help")
