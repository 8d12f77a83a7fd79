"""Commands that are killed at random moments and given again, until they come through.

What is stored in the end must be what a command stores that nobody killed; nothing of a killed one may live
on, and the next one removes what it left in the temporary folder.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devices.host.folders import PREFIX
from tools.attack.samples import digests, fill

MARK = "LATHE_ATTACK"
_LATHE = "from pipeline.cli.main import main; main()"
_GRACE_S = 3.0
_MOST_TRIES = 500


@dataclass
class Tally:
    """What was seen of one kind of command."""

    kills: int = 0
    rounds: int = 0
    lost: int = 0
    differ: int = 0
    orphans: int = 0
    left_behind: int = 0
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    Attributes:
        prepare: makes what it needs in a folder.
        arguments: of ``lathe``, run in that folder.
        result: what it made there, to compare; what it has after a kill is part of it.
        again: done between a kill and the next try.
    """

    name: str
    prepare: Callable[[Path], None]
    arguments: tuple[str, ...]
    result: Callable[[Path], set[str]]
    again: Callable[[Path], None] = lambda folder: None


def kills(
    count: int, seed: int, names: tuple[str, ...], on_progress: Callable[[str], None]
) -> dict[str, Any]:
    """At least so many kills of each scenario named; counts of each."""
    tallies: dict[str, Tally] = {}
    for scenario in (each for each in scenarios() if each.name in names):
        tally = tallies[scenario.name] = Tally()
        chosen = random.Random(f"{seed} {scenario.name}")
        while tally.kills < count and tally.rounds < count:
            _round(scenario, chosen, tally, count)
            on_progress(f"{scenario.name}: {tally}")
    return {name: vars(tally) for name, tally in tallies.items()}


def scenarios() -> Iterator[Scenario]:
    """Every command that keeps something."""
    rows = {"--db", "here.db"}
    yield Scenario("import", _rows, ("db", "import", "rows.csv", *sorted(rows)), _stored)
    yield Scenario("merge", _rows, ("db", "merge", "there.db", *sorted(rows)), _stored)
    published = ("db", "import", "--published", "table.csv", "--device", "d", *sorted(rows))
    yield Scenario("published", _table, published, _cells)
    measure = ("table", "measure", "package", "--target", "host/onnxruntime:fp32@1", *sorted(rows))
    yield Scenario("measure", _package, measure, _measured)
    target = ("--target", "host/onnxruntime:fp32@1", "--launches", "3")
    yield Scenario("profile", _models, ("profile", *_MODELS, *target, "--save", "r.json"), _saved, _put_aside)
    space = ("--space", "tiny.toml", "--input", "8x8", "--networks", "6")
    yield Scenario("build", _recipe, ("table", "build", *space, *target, *sorted(rows)), _measured)
    yield Scenario("run", _recipe, ("run", "tiny.toml", "--work", "work", *sorted(rows)), _bundle)


def _round(scenario: Scenario, chosen: random.Random, tally: Tally, count: int) -> None:
    """One command, killed at any moment of its length and given again until it comes through."""
    with tempfile.TemporaryDirectory(prefix="attack-kill-") as place:
        folder, temporary = Path(place) / "folder", Path(place) / "tmp"
        clean = Path(place) / "clean"
        for each in (folder, temporary, clean):
            each.mkdir()
        scenario.prepare(clean)
        began = time.monotonic()
        code, said = _run(scenario, clean, temporary, None)
        took_s = time.monotonic() - began
        if code != 0:
            tally.failed.append(f"unkilled: {code} {said[-300:]}")
            tally.rounds += 1
            return
        wanted = scenario.result(clean)
        assert wanted, f"{scenario.name} keeps nothing"
        scenario.prepare(folder)
        kept: set[str] = set()
        for _ in range(_MOST_TRIES):
            code, said = _run(
                scenario, folder, temporary, chosen.uniform(0.05, took_s) if tally.kills < count else None
            )
            if code == -signal.SIGKILL:
                tally.kills += 1
                tally.orphans += _orphans(place)
                now = scenario.result(folder)
                tally.lost += len(kept - now)
                kept = now
                scenario.again(folder)
                continue
            if code != 0:
                tally.failed.append(f"{code} {said[-300:]}")
            break
        tally.rounds += 1
        tally.differ += scenario.result(folder) != wanted
        tally.left_behind += len([each for each in temporary.iterdir() if PREFIX in each.name])


def _run(scenario: Scenario, folder: Path, temporary: Path, kill_after_s: float | None) -> tuple[int, str]:
    environment = {**os.environ, "TMPDIR": str(temporary), MARK: str(folder.parent)}
    command = [sys.executable, "-c", _LATHE, *scenario.arguments]
    with (folder.parent / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        try:
            process.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode, (folder.parent / "said").read_text(errors="replace")


def _orphans(mark: str) -> int:
    """Processes of a killed command that live on some seconds later; they are ended here."""
    end = time.monotonic() + _GRACE_S
    while (left := _marked(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return len(left)


def _marked(mark: str) -> list[int]:
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _rows(folder: Path) -> None:
    fill(str(folder / "there.db"), 3_000)
    from latency_db.store import export_file, open_store

    with open_store(str(folder / "there.db")) as store:
        export_file(store, folder / "rows.csv")


def _stored(folder: Path) -> set[str]:
    import json

    if not (folder / "here.db").exists():
        return set()
    try:
        return {json.dumps(row[1:]) for row in json.loads(digests(str(folder / "here.db")))}
    except Exception as error:
        return {f"cannot be read: {error}"} if "no tables" not in str(error) else set()


def _table(folder: Path) -> None:
    lines = "".join(f"Conv{n},{n},{1 + n % 7}.5\n" for n in range(60_000))
    (folder / "table.csv").write_text(f"block,in_h,mean_ms\n{lines}")


def _cells(folder: Path) -> set[str]:
    from latency_db.store import open_store, published_rows

    if not (folder / "here.db").exists():
        return set()
    try:
        with open_store(str(folder / "here.db"), must_exist=True) as store:
            return {str(sorted(row.items())) for batch in published_rows(store) for row in batch}
    except Exception as error:
        return {f"cannot be read: {error}"} if "no tables" not in str(error) else set()


def _package(folder: Path) -> None:
    from devices.inventory import HOST
    from devices.measurement import MeasuringProtocol, Reason
    from devices.target import Target
    from latency_db.store import Workload
    from latency_db.tables.package import write_package

    assert HOST.name == "host"
    canary = Path(__file__).parents[2] / "devices" / "canary" / "canary.onnx"
    workloads = [Workload.of("block", f"block {n}", n) for n in range(6)]
    artifacts: dict[str, Path | Reason] = {each.identity: canary for each in workloads}
    protocol = MeasuringProtocol(launches=3, max_launches=3)
    write_package(folder / "package", Target("host", "onnxruntime"), protocol, workloads, artifacts)


def _measured(folder: Path) -> set[str]:
    """Which workloads have an outcome: their times differ from one command to the next."""
    from latency_db.store import open_store, records

    if not (folder / "here.db").exists():
        return set()
    try:
        with open_store(str(folder / "here.db"), must_exist=True) as store:
            found = [record for batch in records(store) for record in batch if record.damage is None]
            return {str(record.parts["workload"]["description"]) for record in found}
    except Exception as error:
        return {f"cannot be read: {error}"} if "no tables" not in str(error) else set()


_TINY = """
name = "tiny"
allow_chance = true
[data]
kind = "digits"
train_limit = 300
[[teacher]]
kind = "train"
width = 8
depth = 1
training = { epochs = 3 }
[space]
stem_width = 8
head_width = 16
stages = [{ widths = [8, 12], depths = [1, 2], kernels = [3], expansions = [2, 3], squeeze_excite = [0.0] }]
[[target]]
name = "host/onnxruntime:fp32@1"
budget_ms = 1000
[measure]
launches = 3
calibration_networks = 6
[search]
evaluations = 2
training = { epochs = 1 }
[distil]
epochs = 2
[verify]
launches = 6
unmeasured = "pass-over"
"""


_MODELS = tuple(f"model{number}.onnx" for number in range(4))


def _models(folder: Path) -> None:
    canary = Path(__file__).parents[2] / "devices" / "canary" / "canary.onnx"
    for name in _MODELS:
        (folder / name).write_bytes(canary.read_bytes())


def _saved(folder: Path) -> set[str]:
    """Which models have a result, in all files together: a result file is never written over."""
    from devices.result_file import read_results

    files = [*folder.glob("r.json"), *folder.glob("kept-*.json")]
    return {f"{entry.models}" for file in files for entry in read_results(file).entries}


def _put_aside(folder: Path) -> None:
    if (folder / "r.json").exists():
        (folder / "r.json").rename(folder / f"kept-{time.time_ns()}.json")


def _recipe(folder: Path) -> None:
    (folder / "tiny.toml").write_text(_TINY)


def _bundle(folder: Path) -> set[str]:
    """Stages that are done, by name: what was measured differs from one command to the next."""
    results = (folder / "work").rglob("result.json")
    return {path.parent.name.rpartition("-")[0] for path in results}
