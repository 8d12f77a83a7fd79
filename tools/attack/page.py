"""Counts of attacks in the page "what survives what": ``python -m tools.attack.page COUNTS.json...``.

Files of several attacks add up; the tables take the place of those between the marks.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.attack.scenarios import Scenario, scenarios

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "what-survives-what.md"
BEGIN, END = "<!-- counts -->", "<!-- end of counts -->"
_MB = 1 << 20
_SHOWN_STAGES = 8
_FAULTS = ("lost", "differ", "failed", "orphans", "left_behind")


def main() -> None:
    """Write the page."""
    attacks = [json.loads(Path(name).read_bytes()) for name in sys.argv[1:]]
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(attacks)}\n\n{END}{after}", "utf-8")


def tables(attacks: Sequence[dict[str, Any]]) -> str:
    """All tables."""
    parts = (_files(attacks), _kills(attacks), _writers(attacks))
    return "\n\n".join("\n".join(part) for part in parts)


def _files(attacks: Sequence[dict[str, Any]]) -> Iterator[str]:
    fuzzed = [each["fuzzing"] for each in attacks if each.get("fuzzing", {}).get("inputs")]
    limited = [each["limits"] for each in attacks if each.get("limits")]
    outcomes: Counter[str] = sum((Counter(each["outcomes"]) for each in fuzzed), Counter())
    most = max(each["most_bytes_more"] for each in (*fuzzed, *limited))
    yield from _table(
        ("files", "count"),
        [
            ("formats", max(each["formats"] for each in fuzzed)),
            ("damaged files", outcomes.total()),
            ("refused by a clear error with the documented exit code", outcomes["refused"]),
            ("read, since the damage left a sound file", outcomes["read"]),
            ("Python's traceback in place of an error", outcomes["traceback"]),
            ("more than five seconds of the processor, or no end", outcomes["hang"]),
            ("another exit code than the documented one", _other_codes(outcomes)),
            ("accepted though damaged, where digests tell", outcomes["damage accepted"]),
            ("crashes", outcomes["crash"]),
            ("files without limits that were all refused", max(each["bombs"] for each in limited)),
            ("most memory for one file, MB", round(most / _MB)),
        ],
    )


def _other_codes(outcomes: Counter[str]) -> int:
    return sum(count for name, count in outcomes.items() if name.startswith("exit code"))


def _kills(attacks: Sequence[dict[str, Any]]) -> Iterator[str]:
    rows, total = [], Counter[str]()
    for scenario in scenarios():
        tallies = [each["kills"][scenario.name] for each in attacks if scenario.name in each["kills"]]
        counts = Counter[str]()
        stages = Counter[str]()
        for tally in tallies:
            counts.update({name: tally[name] for name in ("kills", "rounds", *_FAULTS)})
            stages.update(tally["at"])
        if counts["kills"]:
            total.update(counts)
            rows.append((f"`{_command(scenario)}`", *_row(counts), _stages(stages)))
    rows.append(("all", *_row(total), ""))
    heads = "command", "kills", "came through", "rows lost", "other results", "processes left", "files left"
    yield from _table((*heads, "killed at"), rows)


def _command(scenario: Scenario) -> str:
    """The command without what it was given."""
    first, *others = scenario.arguments
    kept = [each for each in others[:2] if each in {"import", "merge", "measure", "build", "--published"}]
    return " ".join(("lathe", first, *kept))


def _row(counts: Counter[str]) -> tuple[int, ...]:
    names = ("kills", "rounds", "lost")
    return (
        *(counts[name] for name in names),
        counts["differ"] + counts["failed"],
        counts["orphans"],
        counts["left_behind"],
    )


def _stages(stages: Counter[str]) -> str:
    shown = stages.most_common(_SHOWN_STAGES)
    return ", ".join(f"{name} {count}" for name, count in shown)


def _writers(attacks: Sequence[dict[str, Any]]) -> Iterator[str]:
    rows = []
    for attack in attacks:
        for tally in attack["writers"]:
            name = "PostgreSQL" if tally["database"].startswith("postgresql") else "SQLite"
            facts = (tally[key] for key in ("seconds", "kills", "stored", "lost", "twice"))
            rows.append((name, *facts, len(tally["problems"])))
    heads = ("database", "seconds", "kills", "rows", "lost", "there twice", "problems")
    yield from _table(heads, rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        shown = (f"{each:,}".replace(",", " ") if isinstance(each, int) else str(each) for each in row)
        yield f"| {' | '.join(shown)} |"


if __name__ == "__main__":
    main()
