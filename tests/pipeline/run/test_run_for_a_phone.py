"""A run for a device without Python, whose runtime's own tool times models and gives no outputs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import devices.added
import devices.inventory.devices_file
from devices.errors import TargetError
from devices.requests import prediction
from pipeline.bundle import read_bundle
from tests.devices.local_shell import ShellConnection
from tests.lathe_process import run_here
from tests.pipeline.run.tiny_recipe import ONE_TARGET, command, run_recipe, write_recipe

TARGET = "phone/litert:fp32@1"

# benchmark_model's own words, with a time that grows with the file.
TOOL = r"""#!/bin/sh
for argument; do
    case $argument in
        --help=true) echo "usage: --graph"; exit 1 ;;
        --graph=*) graph=${argument#--graph=} ;;
    esac
done
us=$((40 + $(wc -c < "$graph") / 100))
echo "INFO: Initialized session in 1.5ms."
applied="Explicitly applied XNNPACK delegate, and the model graph will be"
echo "INFO: $applied completely executed by the delegate."
echo "INFO: count=5 first=$us curr=$us min=$us max=$us avg=$us std=0 p5=$us median=$us p95=$us"
echo "INFO: count=60 first=$us curr=$us min=$us max=$us avg=$us std=0 p5=$us median=$us p95=$us"
echo "INFO: Inference timings in us: Init: 1500, First inference: $us, Warmup (avg): $us"
"""


class PhoneConnection(ShellConnection):
    """A shell on this machine that is said to have no Python."""

    def __init__(self) -> None:
        super().__init__(python=None)


@pytest.fixture(autouse=True)
def _phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "benchmark_model"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    (tmp_path / "devices.toml").write_text(
        f'[devices.phone]\nconnection = "pretended"\ntools.benchmark_model = "{tool}"\n'
    )
    entry = EntryPoint(
        "pretended", f"{__name__}:PhoneConnection", devices.inventory.devices_file.ENTRY_POINTS
    )
    monkeypatch.setattr(devices.added, "entry_points", lambda group: [entry] * (group == entry.group))
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))


def phone_recipe(folder: Path) -> Path:
    return write_recipe(folder, ONE_TARGET.replace("host/onnxruntime:fp32@1", TARGET))


@pytest.mark.slow
@pytest.mark.usefixtures("exporters_here")
def test_a_run_for_a_phone_ends_in_a_bundle_that_says_where_its_accuracy_was_taken(tmp_path: Path) -> None:
    document = run_recipe(phone_recipe(tmp_path), tmp_path)
    bundle = Path(document["bundle"])
    (entry,) = read_bundle(bundle).targets
    assert (entry.target, entry.delegate) == (TARGET, "xnnpack")
    assert entry.accuracy is not None
    assert (entry.accuracy.target, entry.accuracy.total) == ("host/litert:fp32@1", 450)
    assert entry.feasible
    assert "host/litert:fp32@1: the target gives no outputs" in Path(document["report"]).read_text()
    np.save(tmp_path / "images.npy", np.load(bundle / "data" / "test.npz")["images"][:3])
    script = [sys.executable, str(bundle / "infer_litert.py"), str(tmp_path / "images.npy")]
    ended = subprocess.run(script, capture_output=True, text=True, check=True)
    assert len(ended.stdout.splitlines()) == 3
    assert "measured by the runtime's own tool" in ended.stderr


def test_a_run_is_refused_before_any_work_when_accuracy_can_be_taken_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(target: object) -> None:
        raise TargetError("litert is not installed", why="No module named 'ai_edge_litert'")

    monkeypatch.setattr(prediction, "probe", gone)
    ended = run_here(*command(phone_recipe(tmp_path), tmp_path))
    assert ended.returncode == TargetError.exit_code
    assert "accuracy cannot be taken" in ended.stderr
    assert not list((tmp_path / "work" / "stages").glob("teacher-*"))


def test_a_run_is_refused_before_any_work_when_the_accelerator_runs_nothing(tmp_path: Path) -> None:
    text = phone_recipe(tmp_path).read_text().replace(TARGET, "host/litert:fp32+gpu@1")
    ended = run_here(*command(write_recipe(tmp_path, text), tmp_path))
    assert ended.returncode != 0
    assert "smoke model does not run on 'host/litert:fp32+gpu@1'" in ended.stderr
    assert not list((tmp_path / "work" / "stages").glob("teacher-*"))
