"""Attacks Lathe: ``python -m tools.attack [short|long] [--seed N] [--json FILE]``.

The short form takes a few minutes and is part of the tests; the long one takes as long as ``--kills`` and
``--inputs`` ask for. Both end with 1 if anything was found.
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

from tools.attack.fuzzing import fuzz
from tools.attack.kills import kills
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


def attack(form: dict[str, Any], seed: int, place: Path) -> dict[str, Any]:
    """Everything, in an empty folder; counts, and what was found."""

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    began = time.monotonic()
    found = {
        "seed": seed,
        "limits": limits(say),
        "fuzzing": fuzz(form["inputs"], seed, say),
        "kills": kills(form["kills"], seed, form["scenarios"], say),
        "writers": [
            writers(location, WRITERS, 60 * form["minutes"], seed, say)
            for location in (str(place / "writers.db"), *form["databases"])
        ],
    }
    return {**found, "seconds": round(time.monotonic() - began), "sound": is_sound(found)}


def is_sound(found: dict[str, Any]) -> bool:
    """Nothing was found."""
    bad = ("lost", "differ", "orphans", "left_behind", "failed")
    killed = any(tally[name] for tally in found["kills"].values() for name in bad)
    wrong = any(tally[name] for tally in found["writers"] for name in ("lost", "twice", "problems"))
    return not (killed or wrong or found["limits"]["faults"] or found["fuzzing"]["faults"])


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
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    form = dict(SHORT if given.form == "short" else LONG)
    for name in form:
        if getattr(given, name) is not None:
            form[name] = getattr(given, name)
    with tempfile.TemporaryDirectory(prefix="attack-") as place:
        for name in ("LATHE_STATE_DIR", "LATHE_CACHE", "XDG_CONFIG_HOME"):
            os.environ[name] = str(Path(place) / name)
        os.environ["LATHE_DEVICES"] = str(Path(place) / "devices.toml")
        found = attack(form, given.seed, Path(place))
    text = json.dumps(found, indent=1)
    if given.json is not None:
        given.json.write_text(f"{text}\n")
    sys.stdout.write(f"{text}\n")
    sys.exit(0 if found["sound"] else 1)


if __name__ == "__main__":
    main()
