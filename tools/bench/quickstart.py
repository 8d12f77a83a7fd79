"""The quickstart's figures, as JSON on standard output: ``python tools/bench/quickstart.py [SEEDS]``.

Runs the embedded quickstart in a new work folder with a new database for each seed (3), then again with
everything cached, then ``lathe verify`` on its bundle. Reported for each seed and over all: wall seconds,
peak memory of the whole process tree, accuracy of the student relative to the teacher, latency relative to
the reference network, parity with torch, seconds per block and target of the table, and whether every claim
held when it was verified again. Wall times are of this machine at this moment.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

LATHE = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]


class PeakMemory(threading.Thread):
    """Samples the proportional set size of a process and its children until the process ends."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.peak_bytes = process, 0

    def run(self) -> None:
        while True:
            try:
                tree = [self.process, *self.process.children(recursive=True)]
                self.peak_bytes = max(self.peak_bytes, sum(map(_pss, tree)))
            except psutil.Error:
                return
            time.sleep(0.2)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def timed(arguments: Sequence[str]) -> tuple[float, int, subprocess.CompletedProcess[str]]:
    """Wall seconds, peak bytes, and how it ended."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [*LATHE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    memory = PeakMemory(psutil.Process(process.pid))
    memory.start()
    out, err = process.communicate()
    ended = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    return time.perf_counter() - started, memory.peak_bytes, ended


def one_seed(seed: int, folder: Path) -> dict[str, Any]:
    """All figures of one run."""
    command = ["run", "--json", "--set", f"seed={seed}", "--work", str(folder / "work")]
    command += ["--db", str(folder / "latency.db")]
    wall_s, peak_bytes, first = timed(command)
    if first.returncode != 0:
        return {"seed": seed, "exit_code": first.returncode, "error": first.stderr.splitlines()[-3:]}
    result = json.loads(first.stdout)
    cached_s, _, _ = timed(command)
    verified = subprocess.run(
        [*LATHE, "verify", result["bundle"]], capture_output=True, text=True, check=False
    )
    targets = result["winner"]["targets"]
    stages = {stage["name"]: stage["seconds"] for stage in result["stages"]}
    space = json.loads(next(folder.glob("work/stages/space-*/result.json")).read_text())["value"]
    blocks = space["distinct_blocks"]
    return {
        "seed": seed,
        "exit_code": 0,
        "wall_s": round(wall_s, 1),
        "peak_gb": round(peak_bytes / 1e9, 2),
        "cached_wall_s": round(cached_s, 1),
        "table_s_per_block_and_target": round(stages["table"] / blocks / len(targets), 3),
        "teacher_accuracy": result["teacher"]["test_accuracy"],
        "student_accuracy": min(target["test_accuracy"] for target in targets),
        "largest_ratio_to_reference": max(target["ratio_to_reference"] for target in targets),
        "largest_ratio_upper": max(target["ratio_upper"] for target in targets),
        "largest_parity_max_abs": max(target["parity_max_abs"] for target in targets),
        "holds_when_verified_again": verified.returncode == 0,
        "stage_s": stages,
    }


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    runs = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(one_seed(seed, Path(folder)))
            print(json.dumps(runs[-1]), file=sys.stderr)
    help_s = min(timed(["--help"])[0] for _ in range(5))
    whole = [run for run in runs if run["exit_code"] == 0]
    summary = {
        "runs": len(runs),
        "finished": len(whole),
        "help_s": round(help_s, 3),
        "largest_wall_s": max((run["wall_s"] for run in whole), default=None),
        "largest_peak_gb": max((run["peak_gb"] for run in whole), default=None),
        "largest_cached_wall_s": max((run["cached_wall_s"] for run in whole), default=None),
        "mean_student_over_teacher_accuracy": (
            sum(run["student_accuracy"] / run["teacher_accuracy"] for run in whole) / len(whole)
            if whole
            else None
        ),
        "largest_ratio_upper": max((run["largest_ratio_upper"] for run in whole), default=None),
        "largest_parity_max_abs": max((run["largest_parity_max_abs"] for run in whole), default=None),
        "all_hold_when_verified_again": all(run["holds_when_verified_again"] for run in whole),
    }
    print(json.dumps({"summary": summary, "runs": runs}, indent=2))


if __name__ == "__main__":
    main()
