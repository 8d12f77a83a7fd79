"""``lathe table`` on int8 targets, from exports to a package that is measured without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lathe_process import run_here

pytestmark = pytest.mark.usefixtures("quiet_machine", "exporters_here")

RECIPE = """
name = "tiny"
[data]
kind = "digits"
[[teacher]]
kind = "train"
[space]
stem_width = 8
head_width = 16
[[space.stages]]
widths = [8, 12]
depths = [1, 2]
kernels = [3]
expansions = [2]
squeeze_excite = [0.0, 0.25]
[[target]]
name = "host/onnxruntime:fp32@1"
budget_ms = 1000
"""
TARGETS = ["host/onnxruntime:int8@1", "host/litert:int8@1"]
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from tests.quiet_machine import be_quiet
be_quiet()
from pipeline.cli.main import main
main()
"""


class Lathe:
    """``lathe`` with one recipe and one database; where torch is missing, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tiny.toml").write_text(RECIPE)

    def __call__(self, *arguments: str, with_torch: bool = True, code: int = 0) -> Any:
        if with_torch:
            ended = run_here(*arguments)
        else:
            command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended.stderr
        return ended

    @property
    def space(self) -> list[str]:
        return ["--space", str(self.folder / "tiny.toml"), "--input", "1x8x8"]

    @property
    def db(self) -> list[str]:
        return ["--db", str(self.folder / "latency.db")]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_package_of_int8_models_is_measured_without_torch_and_gives_a_table(target, tmp_path):
    lathe = Lathe(tmp_path)
    package = str(tmp_path / "package")
    options = ["--target", target, "--networks", "6", "--launches", "3"]
    lathe("table", "plan", package, *options, *lathe.space)
    manifest = json.loads((tmp_path / "package" / "manifest.json").read_text())
    assert manifest["precision"] == "int8"
    assert all(item["reason"] is None for item in manifest["items"])

    ended = lathe("table", "measure", package, "--target", target, "--json", *lathe.db, with_torch=False)
    assert json.loads(ended.stdout)["failed"] == 0

    shown = lathe("table", "show", "--target", target, "--launches", "3", "--json", *lathe.space, *lathe.db)
    table = json.loads(shown.stdout)
    blocks = sum(item["kind"] == "block" for item in manifest["items"])
    assert table["target"] == target
    assert len(table["blocks"]) == blocks > 5
    assert table["failed"] == []
    # What was measured is there already: nothing is exported, which would need torch.
    lathe("table", "build", *options, "--json", *lathe.space, *lathe.db, with_torch=False)


def test_package_of_int8_models_is_refused_for_a_target_in_fp32(tmp_path):
    from devices.measurement.protocol import MeasuringProtocol
    from devices.target import Target
    from latency_db.tables.package import write_package

    target = Target.parse(TARGETS[0])
    write_package(tmp_path / "package", target, MeasuringProtocol(), [], {})
    lathe = Lathe(tmp_path)
    ended = lathe(
        "table",
        "measure",
        str(tmp_path / "package"),
        "--target",
        "host/onnxruntime:fp32@1",
        *lathe.db,
        code=8,
    )
    assert "it was made for onnxruntime:int8" in ended.stderr


@pytest.mark.parametrize("target", ["host/onnxruntime:fp16@1", "host/litert:fp16@1"])
def test_table_in_a_precision_that_is_not_exported_is_refused(target, tmp_path):
    lathe = Lathe(tmp_path)
    ended = lathe("table", "build", "--target", target, *lathe.space, *lathe.db, code=6)
    assert "exported in fp32 and int8" in ended.stderr
