"""Commands whose clock is set back while they work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devices.measurement import Measurement
from latency_db.store import open_store, records
from tests.places import ROOT
from tools.attack.scenarios import package_of

QUIET = "from tests.quiet_machine import be_quiet; be_quiet(); from pipeline.cli.main import main; main()"
ARGUMENTS = ("table", "measure", "package", "--target", "host/onnxruntime:fp32@1", "--db", "here.db")


# What asks for the time of day is told another one; what measures how long something takes is not.
SHIFTED = r"""
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <time.h>
extern "C" int clock_gettime(clockid_t clock, struct timespec *now) noexcept {
  using Asked = int (*)(clockid_t, struct timespec *);
  static const Asked asked = reinterpret_cast<Asked>(dlsym(RTLD_NEXT, "clock_gettime"));
  const int result = asked(clock, now);
  long shift_s = 0;
  if (clock == CLOCK_REALTIME)
    if (FILE *file = std::fopen(std::getenv("SHIFT_FILE"), "r")) {
      if (std::fscanf(file, "%ld", &shift_s) != 1) shift_s = 0;
      std::fclose(file);
    }
  now->tv_sec += shift_s;
  return result;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler (Debian: g++)")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "shifted.cpp").write_text(SHIFTED)
    made = folder / "shifted.so"
    command = ["g++", "-shared", "-fPIC", "-o", str(made), str(folder / "shifted.cpp"), "-ldl"]
    subprocess.run(command, check=True)
    return made


def start(folder: Path, library: Path) -> subprocess.Popen[str]:
    """A command whose clock is off by the seconds that ``shift`` in the folder says whenever it is asked."""
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "SHIFT_FILE": str(folder / "shift"),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", QUIET, *ARGUMENTS]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("jump_s", [-200_000, 200_000])
def test_a_clock_that_is_set_while_a_package_is_measured_loses_nothing(
    tmp_path: Path, library: Path, jump_s: int
) -> None:
    package_of(tmp_path, workloads=6)
    shift = tmp_path / "shift"
    shift.write_text("0")
    process = start(tmp_path, library)
    while process.poll() is None and not (tmp_path / "here.db").exists():
        time.sleep(0.01)
    shift.write_text(str(jump_s))
    _, said = process.communicate()
    assert process.returncode == 0, said
    with open_store(str(tmp_path / "here.db"), must_exist=True) as store:
        found = [record for batch in records(store) for record in batch]
        assert {record.parts["workload"]["description"] for record in found} == {
            f"block {n}" for n in range(6)
        }
        assert all(isinstance(record.outcome, Measurement) for record in found)
        assert all(record.damage is None for record in found)
        # They were stored by the clock that had been set.
        stored = {datetime.fromisoformat(record.columns["started_at"]) for record in found}
        assert all(abs((datetime.now(UTC) - each).total_seconds()) > abs(jump_s) / 2 for each in stored)
        count = store.count()
    shift.write_text("0")
    again = start(tmp_path, library)
    _, said = again.communicate()
    assert again.returncode == 0, said
    with open_store(str(tmp_path / "here.db"), must_exist=True) as store:
        assert store.count() == count, "what was measured by the other clock is found again"
