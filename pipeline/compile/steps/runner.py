"""What the process of ``pipeline.compile.child`` does: run as a script, without the rest of Lathe.

``python runner.py FOLDER MODULE:FUNCTION`` calls a function of a module beside this file with the arguments
in ``FOLDER/arguments.json``, and leaves its result, or why it failed, in ``FOLDER/answer.json``. To import
all of Lathe would take as long as many steps do.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

from pipeline.export.worker import first_line, lacks_memory, lacks_space

ARGUMENTS, ANSWER = "arguments.json", "answer.json"


def main(folder: str, step: str) -> None:
    """Call, and leave the answer."""
    module, _, function = step.partition(":")
    try:
        path = Path(__file__).with_name(f"{module}.py")
        spec = importlib.util.spec_from_file_location(f"lathe_step_{module}", path)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        arguments = json.loads((Path(folder) / ARGUMENTS).read_text("utf-8"))
        document = {"result": getattr(loaded, function)(**arguments)}
    except Exception as error:
        document = {"error": first_line(error), "memory": lacks_memory(error), "space": lacks_space(error)}
    (Path(folder) / ANSWER).write_text(json.dumps(document), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
