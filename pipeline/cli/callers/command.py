"""What ``lathe callers`` does; imported only when it runs."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.bundle import write_callers
from pipeline.cli.output import print_json


def write_examples(bundle: str, folder: str, *, c_header: bool, as_json: bool) -> None:
    """``lathe callers``."""
    written = write_callers(Path(bundle), Path(folder), c_header=c_header)
    if as_json:
        files = [str(file) for file in written.files]
        print_json({"bundle": bundle, "files": files, "notes": list(written.notes)})
    else:
        sys.stdout.write("".join(f"{file}\n" for file in written.files))
        sys.stderr.write("".join(f"note: {note}\n" for note in written.notes))
