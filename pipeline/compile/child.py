"""Calls a function of ``pipeline.compile.steps`` in a process of its own.

Compilers and quantisers write to standard output and error from C, keep threads and memory, and may abort;
none of that reaches the caller. The process has its arguments as JSON in a file, and it ends with this one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from devices.host import temporary_folder
from pipeline.compile.steps import runner
from pipeline.errors import ExportError, PassingExportError
from pipeline.export.process import no_space, run_quietly
from pipeline.export.worker import tells_of_memory

TIMEOUT_S = 1800.0
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "NNCF_CI": "1",  # NNCF tells its makers nothing
}


def call(step: str, *, what: str, fix: str = "", **arguments: Any) -> Any:
    """The result of a function, which must be JSON as its arguments are.

    Args:
        step: ``module:function`` below ``pipeline.compile.steps``.
        what: it fails to do if it fails, as a sentence.
        fix: what can be done about it.
        arguments: of the function, by name.

    Raises:
        PassingExportError: it took too long or lacked memory.
        ExportError: the function raised, or its process ended; the reason is in ``why``.
        TemporaryFolderError: the disk of temporary folders is full.
        OSError: another disk is full.
        Interrupted: this process was told to end.
    """
    with temporary_folder("compile") as folder:
        # A command line holds little, and names of a thousand operators may be among the arguments.
        (folder / runner.ARGUMENTS).write_text(json.dumps(arguments), "utf-8")
        # By path and with -P: nothing in the working directory can take the place of a package.
        command = (sys.executable, "-P", runner.__file__, str(folder), step)
        try:
            ended = run_quietly(command, folder, _ENVIRONMENT, TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise PassingExportError(
                "timeout", what, why=f"it did not end within {TIMEOUT_S:.0f} s"
            ) from None
        answer = folder / runner.ANSWER
        if answer.exists():
            document = json.loads(answer.read_text("utf-8"))
            if "result" in document:
                return document["result"]
            if document["space"]:
                raise no_space(folder)
            if document["memory"]:
                raise PassingExportError("out-of-memory", what, why=document["error"])
            raise ExportError(what, why=document["error"], fix=fix)
        said = ended.stdout.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"it ended with status {ended.returncode}"
        if tells_of_memory(why):
            raise PassingExportError("out-of-memory", what, why=why)
        raise ExportError(what, why=why, fix=fix)
