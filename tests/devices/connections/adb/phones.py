"""What tests of phones need of this machine, and a shell on one."""

from __future__ import annotations

import shutil

import pytest

from devices.connections.adb import AdbConnection

NEEDED = ("adb", "mksh", "toybox")

needs_adb = pytest.mark.skipif(
    any(shutil.which(name) is None for name in NEEDED),
    reason=f"needs the Debian packages {', '.join(NEEDED)}",
)


def shell(connection: AdbConnection, script: str, **options) -> tuple[list[str], int]:
    lines: list[str] = []
    ended = connection.run(("sh", "-c", script), on_line=lines.append, **{"timeout_s": 20, **options})
    return lines, ended.returncode
