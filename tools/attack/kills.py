"""Commands that are killed at random moments and given again, until they come through.

What is stored in the end must be what a command stores that nobody killed; nothing of a killed one may live
on, and in the end nothing is in the temporary folder that is not there after a command that nobody killed.
"""

from __future__ import annotations

import os
import random
import re
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lathe_process import LatheProcess
from tests.places import ROOT
from tools.attack.scenarios import Scenario, scenarios

MARK = "LATHE_ATTACK"
_GRACE_S = 3.0
_KILLS_A_ROUND = 12
"""After which a command may come through, if it has not."""
_SHARES = (0.1, 0.4, 1.0)
"""Up to which share of its length a command lives: short ones hit what a try begins with, and make many."""
_FAULTS = ("lost", "differ", "orphans", "left_behind", "failed")


@dataclass(frozen=True)
class Unkilled:
    """What a command does that nobody kills.

    Attributes:
        took_s: how long it took.
        result: what it made.
        left: what is in the temporary folder afterwards: torch keeps a folder of its own there.
    """

    took_s: float
    result: set[str]
    left: set[str]


def kills(
    count: int,
    seed: int,
    names: tuple[str, ...],
    on_progress: Callable[[str], None],
    tallies: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """At least so many kills of each scenario named; counts of each.

    Args:
        count: of kills.
        seed: decides the moments.
        names: of scenarios.
        on_progress: called with a line after each kill, when the counts are up to date.
        tallies: counts of an attack that was ended, to go on with; they are changed.
    """
    tallies = {} if tallies is None else tallies
    left = [each for each in scenarios() if each.name in names]
    for scenario in left:
        new = {"kills": 0, "rounds": 0, "at": {}, **dict.fromkeys(_FAULTS, 0), "faults": []}
        tallies.setdefault(scenario.name, new)
    unkilled: dict[str, Unkilled] = {}
    # In turns, so that an attack that is ended has killed each of them.
    while left := [each for each in left if tallies[each.name]["kills"] < count]:
        for scenario in left:
            tally = tallies[scenario.name]
            if scenario.name not in unkilled:
                with tempfile.TemporaryDirectory(prefix="attack-") as place:
                    unkilled[scenario.name] = _unkilled(scenario, Path(place))
            wanted = unkilled[scenario.name]
            chosen = random.Random(f"{seed} {scenario.name} {tally['rounds']} {tally['kills']}")
            most = min(_KILLS_A_ROUND, count - tally["kills"])
            lives = [wanted.took_s * chosen.choice(_SHARES) * chosen.random() for _ in range(most)]
            with tempfile.TemporaryDirectory(prefix="attack-") as place:
                _round(scenario, Path(place), lives, wanted, tally, on_progress)
    return tallies


def faults(tally: dict[str, Any]) -> int:
    """How much was found."""
    return sum(tally[name] for name in _FAULTS)


def _unkilled(scenario: Scenario, place: Path) -> Unkilled:
    folder = _folder(place)
    scenario.prepare(folder)
    LatheProcess("--version", log=place / "log").wait()  # the first one waits for heavy imports
    began = time.monotonic()
    ended = _start(scenario, place).wait()
    took_s = time.monotonic() - began
    assert ended.returncode == 0, f"{scenario.name}: {ended.stderr[-2000:]}"
    result = scenario.result(folder)
    assert result, f"{scenario.name} keeps nothing"
    return Unkilled(took_s, result, _left(place))


def _round(  # noqa: PLR0917
    scenario: Scenario,
    place: Path,
    lives_s: list[float],
    wanted: Unkilled,
    tally: dict[str, Any],
    on_progress: Callable[[str], None],
) -> None:
    """One command, killed after each of these times and given again until it comes through."""
    folder = _folder(place)
    scenario.prepare(folder)
    kept: set[str] = set()

    def found(fault: str, count: int, what: object) -> None:
        if count:
            tally[fault] += count
            tally["faults"].append(f"{fault}: {what}"[:1000])

    for life_s in (*lives_s, None):
        process = _start(scenario, place)
        if life_s is not None:
            end = time.monotonic() + life_s
            while time.monotonic() < end and process.poll() is None:
                time.sleep(0.005)
            where = process.where()
            # The question where it is ends one that is about to end by itself.
            if process.kill_when(lambda: True) or process.poll() == -signal.SIGUSR1:
                at = stage(where) if process.poll() == -signal.SIGKILL else "ending"
                tally["kills"] += 1
                tally["at"][at] = tally["at"].get(at, 0) + 1
                orphans = _orphans(place)
                found("orphans", len(orphans), f"{orphans} {where}")
                now = scenario.result(folder)
                found("lost", len(kept - now), sorted(kept - now)[:5])
                kept = now
                scenario.again(folder)
                on_progress(f"{scenario.name}: kill {tally['kills']} at {at}, {faults(tally)} faults")
                continue
        ended = process.wait()
        found("failed", int(ended.returncode != 0), f"{ended.returncode} {ended.stderr[-500:]}")
        break
    result = scenario.result(folder)
    found("differ", int(result != wanted.result), sorted(result ^ wanted.result)[:5])
    left = _left(place) - wanted.left
    found("left_behind", len(left), sorted(left)[:5])
    tally["rounds"] += 1


def _left(place: Path) -> set[str]:
    return {path.name for path in (place / "tmp").iterdir()}


def _folder(place: Path) -> Path:
    for name in ("folder", "tmp", "log"):
        (place / name).mkdir()
    return place / "folder"


def _start(scenario: Scenario, place: Path) -> LatheProcess:
    own = {"TMPDIR": str(place / "tmp"), "LATHE_CACHE": str(place / "cache"), MARK: str(place)}
    environment = {**os.environ, **own}
    return LatheProcess(
        *scenario.arguments, log=place / "log", folder=place / "folder", environment=environment
    )


def stage(stack: str) -> str:
    """Where a command is by its stack: the stage of a run, and the room of the code that is at work."""
    files = re.findall(rf'File "{re.escape(str(ROOT))}/(.*?)"', stack)
    ours = [file for file in files if file.startswith(("devices/", "latency_db/", "pipeline/"))]
    if not ours:
        return "starting"
    room = "/".join(Path(ours[0]).parts[:2]).removesuffix(".py")
    stages = [Path(file).stem for file in ours if file.startswith("pipeline/stages/")]
    return f"{stages[-1]}: {room}" if stages else room


def _orphans(place: Path) -> list[str]:
    """Processes of a killed command that live on some seconds later, by name; they are ended here."""
    end = time.monotonic() + _GRACE_S
    while (left := _marked(place)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return list(left.values())


def _marked(place: Path) -> dict[int, str]:
    wanted, found = f"{MARK}={place}".encode(), {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = command.decode(errors="replace")[:200]
            except OSError:
                continue
    return found
