"""The runtime that docs/extending/runtimes-and-connections.md writes passes the suite that the page names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

PAGE = ROOT / "docs" / "extending" / "runtimes-and-connections.md"

# An installed distribution would have the entry point.
CONFTEST = """
from importlib.metadata import EntryPoint

import devices.added
import devices.runtimes

entry = EntryPoint("numpy", "numpy_lathe:NUMPY", devices.runtimes.ENTRY_POINTS)
devices.added.entry_points = lambda group: [entry]
"""


@pytest.mark.slow
def test_the_documented_runtime_passes_the_contract_suite(tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```python\n# (numpy_\w+\.py|test_\w+\.py)\n(.*?)^```", PAGE.read_text(), re.M | re.S
    )
    assert [name for name, _ in blocks] == ["numpy_engine.py", "numpy_lathe.py", "test_numpy_runtime.py"]
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert int(re.search(r"(\d+) passed", ended.stdout)[1]) >= 20
