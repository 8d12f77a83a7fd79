"""How every command ends: with its documented exit code, its error told once and in the documented form."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable

import typer
from typer.exceptions import TyperException

from devices.errors import LatheError
from pipeline.cli.output import NO_SPACE, print_error, written
from pipeline.errors import UsageError, WorkFolderError

CLOSED_PIPE = 141
"""As a shell tells of a program that SIGPIPE ended."""
_SHOWN_NAME = 60


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
        written(sys.stdout, lambda: None)
        return CLOSED_PIPE
    except typer.Exit as ended:
        written(sys.stdout, lambda: None)
        return ended.exit_code
    except LatheError as error:
        return _told(error, as_json=as_json)
    except TyperException as error:
        return _told(_usage_error(error), as_json=as_json)
    except Exception as error:
        return _told(_unexplained(error), as_json=as_json)
    return 0


def _told(error: LatheError, *, as_json: bool) -> int:
    print_error(error, as_json=as_json)
    return error.exit_code


def _unexplained(error: Exception) -> LatheError:
    """For what no command explains itself: a full disk, a name that no file can have, or a fault of Lathe."""
    if isinstance(error, OSError) and error.errno in (*NO_SPACE, errno.EROFS):
        return WorkFolderError(
            f"{error.filename or 'the output'} cannot be written",
            why=str(error.strerror),
            fix="free some space or choose another place, and run the same command again: it continues from "
            "what is finished",
        )
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return UsageError(
            f"'{str(error.filename)[:_SHOWN_NAME]}…' is too long for the name of a file",
            fix="see what was given where a file or folder is expected",
        )
    traceback.print_exception(error)
    return LatheError(
        f"unexpected {type(error).__name__}: {error}",
        why="this is a fault of Lathe, the lines above say where",
        fix="run the same command again, it continues from there; report the fault if it comes back",
    )


def _usage_error(error: TyperException) -> UsageError:
    context = getattr(error, "ctx", None)
    command = "lathe" if context is None else context.command_path
    return UsageError(error.format_message(), fix=f"see {command} --help")
