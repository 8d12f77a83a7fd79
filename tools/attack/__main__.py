"""Attacks Lathe: ``python -m tools.attack [short|long] [--seed N] [--json FILE]``.

The short form takes a few minutes and is part of the tests; the long one takes as long as ``--kills``,
``--inputs`` and ``--minutes`` ask for, and keeps its counts if it is ended. The same command goes on then;
another seed needs another file. Both end with 1 if anything was found.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.work.disk import write_atomically
from tools.attack.fuzzing import fuzz
from tools.attack.kills import faults, kills
from tools.attack.limits import limits
from tools.attack.writers import writers

SHORT = {"inputs": 330, "kills": 2, "scenarios": ("import", "merge"), "minutes": 0.1, "databases": ()}
LONG = {
    "inputs": 3_300,
    "kills": 60,
    "scenarios": ("import", "merge", "published", "measure", "profile", "build", "run"),
    "minutes": 5.0,
    "databases": (),
}
WRITERS = 8


def attack(form: dict[str, Any], seed: int, place: Path, kept: Path | None = None) -> dict[str, Any]:
    """Everything, in an empty folder; counts, and what was found.

    Args:
        form: what is attacked, and how much.
        seed: every input follows from it.
        place: an empty folder.
        kept: a file of counts, written after each step; an attack with the same seed goes on from it.
    """
    began = time.monotonic()
    known = json.loads(kept.read_bytes()) if kept is not None and kept.exists() else {}
    if known.get("seed", seed) != seed:
        raise SystemExit(f"{kept} has the counts of seed {known['seed']}: name another file")
    found = known or {"seed": seed, "kills": {}, "writers": [], "seconds": 0}
    before_s = found["seconds"]

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        found["seconds"] = before_s + round(time.monotonic() - began)
        found["sound"] = is_sound(found)
        if kept is not None:
            write_atomically(kept, f"{json.dumps(found, indent=1)}\n".encode())

    if "limits" not in found:
        found["limits"] = limits(say)
    fuzz(form["inputs"], seed, say, found.setdefault("fuzzing", {}))
    kills(form["kills"], seed, form["scenarios"], say, found["kills"])
    done = len(found["writers"])
    for location in (str(place / "writers.db"), *form["databases"])[done:] if form["minutes"] else ():
        tally = writers(location, WRITERS, 60 * form["minutes"], seed, say)
        found["writers"].append({"database": location.partition("+")[0].rpartition("/")[2], **tally})
    say("ended")
    return found


def is_sound(found: dict[str, Any]) -> bool:
    """Nothing was found, as far as it went."""
    killed = sum(map(faults, found["kills"].values()))
    wrong = any(tally[name] for tally in found["writers"] for name in ("lost", "twice", "problems"))
    parts = (found.get(name, {}).get("faults") for name in ("limits", "fuzzing"))
    return not (killed or wrong or any(parts))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", nargs="?", choices=("short", "long"), default="short")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, help="damaged files")
    parser.add_argument("--kills", type=int, help="of each command")
    parser.add_argument("--scenarios", nargs="*", help="commands that are killed")
    parser.add_argument("--minutes", type=float, help="for which eight processes write to a database")
    parser.add_argument("--databases", nargs="*", help="URLs of other empty databases for them")
    kept = "file of counts, written after each step; the same command with the same seed goes on from it"
    parser.add_argument("--json", type=Path, help=kept)
    given = parser.parse_args()
    form = dict(SHORT if given.form == "short" else LONG)
    for name in form:
        if getattr(given, name) is not None:
            form[name] = getattr(given, name)
    with tempfile.TemporaryDirectory(prefix="attack-") as place:
        for name in ("LATHE_STATE_DIR", "LATHE_CACHE", "XDG_CONFIG_HOME"):
            os.environ[name] = str(Path(place) / name)
        os.environ["LATHE_DEVICES"] = str(Path(place) / "devices.toml")
        found = attack(form, given.seed, Path(place), given.json)
    sys.stdout.write(f"{json.dumps(found, indent=1)}\n")
    sys.exit(0 if found["sound"] else 1)


if __name__ == "__main__":
    main()
