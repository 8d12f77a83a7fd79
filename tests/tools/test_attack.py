"""The short form of the attack finds nothing."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from latency_db.errors import StoreError
from tests.lathe_process import LatheProcess
from tests.places import ROOT
from tools.attack import __main__ as attack
from tools.attack import fuzzing, page
from tools.attack.fuzzing import damaged, fuzz, judged
from tools.attack.kills import faults, kills, stage
from tools.attack.limits import limits
from tools.attack.samples import formats
from tools.attack.writers import writers

Found = dict[str, Any]


def quiet(_: str) -> None:
    """Nothing is said."""


@pytest.mark.slow
def test_files_without_limits_are_refused_at_once() -> None:
    found = limits(quiet)
    assert found["faults"] == {}
    assert found["bombs"] > 50


@pytest.mark.slow
def test_damaged_files_of_every_format_are_read_or_refused() -> None:
    found = fuzz(attack.SHORT["inputs"] // 3, 0, quiet)
    assert found["faults"] == {}
    assert found["inputs"] == attack.SHORT["inputs"] // 3
    assert found["formats"] > 30


@pytest.mark.slow
def test_writers_of_which_some_are_killed_lose_nothing(tmp_path: Path) -> None:
    found = writers(str(tmp_path / "rows.db"), attack.WRITERS, 12.0, 0, quiet)
    assert (found["lost"], found["twice"], found["problems"]) == (0, 0, [])
    assert found["stored"] > 0
    assert found["kills"] > 0


@pytest.mark.slow
def test_killed_commands_lose_nothing_and_leave_nothing() -> None:
    found = kills(attack.SHORT["kills"], 0, attack.SHORT["scenarios"], quiet)
    assert found.keys() == set(attack.SHORT["scenarios"])
    for tally in found.values():
        assert (faults(tally), tally["faults"]) == (0, [])
        assert sum(tally["at"].values()) == tally["kills"] >= attack.SHORT["kills"]


def test_the_attack_sees_what_it_looks_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")

    def crash(_: Path) -> str:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGSEGV)
        return ""

    def fail(_: Path) -> str:
        raise ZeroDivisionError

    assert judged(lambda path: path.read_text(), path)[:2] == ("read", "content")
    assert judged(crash, path)[0] == "crash"

    def refuse(_: Path) -> str:
        raise StoreError("damaged")

    assert judged(fail, path)[0] == "traceback"
    assert judged(refuse, path, (8,))[:2] == ("refused", "damaged")
    assert judged(refuse, path, (11,))[0] == "exit code 8"
    tally = {"lost": 1, "differ": 0, "orphans": 0, "left_behind": 0, "failed": 0}
    sound: Found = {"kills": {}, "writers": [], "limits": {"faults": {}}, "fuzzing": {"faults": {}}}
    assert attack.is_sound(sound)
    assert not attack.is_sound({**sound, "kills": {"import": tally}})
    lost = {"lost": 1, "twice": 0, "problems": []}
    assert not attack.is_sound({**sound, "writers": [lost]})
    assert not attack.is_sound({**sound, "limits": {"faults": {"a": "hang"}}})


def test_damage_is_the_same_for_the_same_seed() -> None:
    content = bytes(range(200))
    assert [damaged(content, random.Random(7)) for _ in range(3)] == [damaged(content, random.Random(7))] * 3
    assert damaged(content, random.Random(7)) != content
    assert isinstance(damaged(b"", random.Random(1)), bytes)


def test_the_command_line_writes_the_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: Found = {"kills": {}, "limits": {"faults": {}}, "fuzzing": {"faults": {}}, "sound": True}
    monkeypatch.setattr(
        attack, "attack", lambda form, seed, place, kept: {**found, "form": form["inputs"], "seed": seed}
    )
    for name in ("LATHE_STATE_DIR", "LATHE_CACHE", "XDG_CONFIG_HOME", "LATHE_DEVICES"):
        monkeypatch.setenv(name, str(tmp_path))
    argv = ["attack", "long", "--seed", "3", "--inputs", "5", "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        attack.main()
    assert ended.value.code == 0
    written = json.loads(capsys.readouterr().out)
    assert (written["form"], written["seed"]) == (5, 3)


def test_an_attack_that_was_ended_keeps_its_counts_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = list(formats())[7:9]
    monkeypatch.setattr(fuzzing, "formats", lambda: wanted)
    monkeypatch.setattr(fuzzing, "bundle_formats", lambda: [])
    monkeypatch.setattr(fuzzing, "model_formats", lambda: [])
    monkeypatch.setattr(attack, "limits", lambda say: {"bombs": 1, "most_bytes_more": 5, "faults": {}})
    tally = {"lost": 0, "twice": 0, "problems": []}
    monkeypatch.setattr(attack, "writers", lambda *_: tally)
    kept, form = tmp_path / "counts.json", {"inputs": 6, "kills": 0, "scenarios": (), "minutes": 1}

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as ended:
        ended.setattr(attack, "kills", end)
        with pytest.raises(KeyboardInterrupt):
            attack.attack({**form, "databases": ()}, 0, tmp_path, kept)
    before = json.loads(kept.read_bytes())
    assert before["fuzzing"]["inputs"] == 6
    assert before["sound"]
    monkeypatch.setattr(attack, "limits", end)
    attack.attack({**form, "inputs": 10, "databases": ("postgresql+psycopg://x",)}, 0, tmp_path, kept)
    after = json.loads(kept.read_bytes())
    assert (after["fuzzing"]["inputs"], after["limits"]) == (10, before["limits"])
    assert [each["database"] for each in after["writers"]] == ["writers.db", "postgresql"]
    assert sum(after["fuzzing"]["outcomes"].values()) == 10


def test_where_a_command_was_killed_is_told_by_its_stack() -> None:
    def stack(*files: str) -> str:
        return "".join(f'  File "{ROOT}/{file}", line 1 in f\n' for file in files)

    in_run = stack("devices/measuring/batch.py", "pipeline/tables/building/plan.py")
    assert stage(in_run) == "devices/measuring"
    assert (
        stage(in_run + stack("pipeline/stages/latency/table.py", "pipeline/run/context.py"))
        == "table: devices/measuring"
    )
    assert stage('  File "/usr/lib/python3/re.py", line 1 in f\n') == "starting"


def test_a_killed_command_says_where_it_was(tmp_path: Path) -> None:
    process = LatheProcess("run", "quickstart", "--work", str(tmp_path / "work"), log=tmp_path)
    where = process.where()
    assert process.kill_when(lambda: True)
    assert "lathe_process.py" in where


def test_the_page_has_the_sums_of_all_attacks() -> None:
    outcomes = {"refused": 3, "read": 1, "exit code 8": 1}
    fuzzed = {"inputs": 5, "formats": 2, "outcomes": outcomes, "most_bytes_more": 3 << 20}
    tally = {"kills": 2, "rounds": 1, "at": {"latency_db/store": 2}, "lost": 1, "differ": 0, "orphans": 0}
    killed = {"import": {**tally, "left_behind": 0, "failed": 1, "faults": ["lost"]}}
    limits = {"bombs": 7, "most_bytes_more": 1 << 20, "faults": {}}
    written = {"database": "postgresql", "seconds": 300, "kills": 9, "stored": 12_345, "lost": 0, "twice": 0}
    first: Found = {"limits": limits, "fuzzing": fuzzed, "kills": killed, "writers": []}
    second: Found = {"fuzzing": {}, "kills": killed, "writers": [{**written, "problems": []}]}
    text = page.tables([first, second])
    assert "| damaged files | 5 |" in text
    assert "| another exit code than the documented one | 1 |" in text
    assert "| most memory for one file, MB | 3 |" in text
    assert "| `lathe db import` | 4 | 2 | 2 | 2 | 0 | 0 | latency_db/store 4 |" in text
    assert "| all | 4 | 2 | 2 | 2 | 0 | 0 |  |" in text
    assert "| PostgreSQL | 300 | 9 | 12 345 | 0 | 0 | 0 |" in text
