"""Files of every format, damaged at random, each read in a process of its own.

Each must be read, or be refused by a clear error; where a file carries digests, no damage may be accepted.
"""

from __future__ import annotations

import faulthandler
import os
import random
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from devices.errors import LatheError
from tools.attack.bundles import bundle_formats
from tools.attack.model_samples import model_formats
from tools.attack.samples import Format, formats

HANG_S = 20
"""Generous, since other work may take the processor; processor time is held against ``MOST_CPU_S``."""
MOST_CPU_S = 5.0
MOST_BYTES = 1 << 30
_TRACEBACK, _REFUSED = 2, 100
"""How the process of one input ends; after a refusal its exit code is added."""

_NUMBERS = (
    b"0",
    b"-1",
    b"9" * 5000,
    b"1e308",
    b"1e999",
    b"NaN",
    b"null",
    b"{}",
    b"[" * 2000,
    b'"x"',
    b"\xff\xff\xff\xff",
)


def damaged(content: bytes, random: random.Random) -> bytes:
    """The content after one to four changes."""
    result = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        place = random.randrange(len(result) + 1) if result else 0
        length = min(len(result) - place, random.choice((1, 1, 2, 4, 16, 256)))
        match random.randrange(7):
            case 0 if place < len(result):
                result[place] ^= 1 << random.randrange(8)
            case 1:
                result[place : place + length] = random.randbytes(length)
            case 2:
                del result[place : place + length]
            case 3:
                del result[place:]
            case 4:
                result[place:place] = result[place : place + length] * random.choice((1, 3, 50))
            case 5:
                result[place : place + random.choice((0, length))] = random.choice(_NUMBERS)
            case _:
                result[place:place] = random.randbytes(random.choice((1, 4, 8)))
    return bytes(result)


def fuzz(
    count: int, seed: int, on_progress: Callable[[str], None], known: dict[str, Any] | None = None
) -> dict[str, Any]:
    """So many damaged inputs over all formats; counts by outcome, and every fault.

    Args:
        count: of inputs.
        seed: decides the damage.
        on_progress: called with a line after each format, when the counts are up to date.
        known: counts of an attack that was ended, to go on with; they are changed.
    """
    known = {} if known is None else known
    every = known.setdefault("by_format", {})
    wanted = [*formats(), *model_formats(), *bundle_formats()]
    with tempfile.TemporaryDirectory(prefix="attack-") as place:
        for number, fmt in enumerate(wanted):
            done = every.setdefault(
                fmt.name, {"inputs": 0, "outcomes": {}, "most_bytes_more": 0, "faults": []}
            )
            share = count // len(wanted) + (number < count % len(wanted)) - done["inputs"]
            if share > 0:
                folder = Path(place) / str(number)
                folder.mkdir()
                _fuzz_one(fmt, folder, share, random.Random(f"{seed} {fmt.name} {done['inputs']}"), done)
            total: Counter[str] = sum((Counter(each["outcomes"]) for each in every.values()), Counter())
            known["inputs"], known["formats"], known["outcomes"] = total.total(), len(every), dict(total)
            known["most_bytes_more"] = max(each["most_bytes_more"] for each in every.values())
            known["faults"] = {name: each["faults"] for name, each in every.items() if each["faults"]}
            on_progress(f"{fmt.name}: {done['outcomes']}")
    return known


def _fuzz_one(fmt: Format, folder: Path, count: int, random: random.Random, done: dict[str, Any]) -> None:
    path = fmt.write(folder)
    sound = path.read_bytes()
    outcome, told, _ = judged(fmt.read, path)
    assert outcome == "read", (fmt.name, outcome, told)
    outcomes: Counter[str] = Counter(done["outcomes"])
    for _ in range(count):
        content = damaged(sound, random)
        path.write_bytes(content)
        outcome, answer, size = judged(fmt.read, path, fmt.codes)
        if outcome == "read" and fmt.digested and not _is_part(answer, told):
            outcome = "damage accepted"
        outcomes[outcome] += 1
        done["most_bytes_more"] = max(done["most_bytes_more"], size)
        if outcome not in ("read", "refused"):
            name = f"attack-fault-{os.getpid()}-{fmt.name.replace(' ', '-')}-{len(done['faults'])}"
            kept = Path(tempfile.gettempdir()) / name
            kept.write_bytes(content)
            done["faults"].append(f"{outcome}: {answer[-1500:]} ({kept})")
    done["inputs"], done["outcomes"] = outcomes.total(), dict(outcomes)


def _is_part(answer: str, told: str) -> bool:
    """Every row that was read is one that was written: others may be missing, none may be another."""
    import json

    return {tuple(row) for row in json.loads(answer)} <= {tuple(row) for row in json.loads(told)}


def judged(
    read: Callable[[Path], str], path: Path, codes: Container[int] = range(2, 100)
) -> tuple[str, str, int]:
    """What became of one input: outcome, what was read or said, and by how many bytes memory grew.

    Args:
        read: what reads it.
        path: of the input.
        codes: exit codes that are documented for what is wrong with it.
    """
    # Not beside the file: a bundle has nothing in it that is not listed.
    answer = Path(tempfile.gettempdir()) / f"attack-answer-{os.getpid()}"
    answer.unlink(missing_ok=True)
    before, own_bytes = time.monotonic(), _resident_bytes()
    child = os.fork()
    if child == 0:
        _read_and_die(read, path, answer)
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - before > HANG_S:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hang", f"no end after {HANG_S} s", 0
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status)
    said = answer.read_text(errors="replace") if answer.exists() else ""
    answer.unlink(missing_ok=True)
    grown = max(0, usage.ru_maxrss * 1024 - own_bytes)
    if code < 0:
        return "crash", f"signal {-code}", grown
    if code >= _REFUSED:
        outcome = "refused" if code - _REFUSED in codes else f"exit code {code - _REFUSED}"
    else:
        outcome = {0: "read", _TRACEBACK: "traceback"}.get(code, "crash")
    if usage.ru_utime + usage.ru_stime > MOST_CPU_S:
        return "hang", f"{usage.ru_utime:.1f} s of the processor; {outcome}", grown
    if grown > MOST_BYTES:
        return "memory", f"{grown >> 20} MB", grown
    return outcome, said, grown


def _resident_bytes() -> int:
    """Memory of this process now, with which a fork begins; its own peak may have been higher."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _read_and_die(read: Callable[[Path], str], path: Path, answer: Path) -> None:
    faulthandler.disable()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    code = _TRACEBACK
    try:
        answer.write_text(read(path), errors="replace")
        code = 0
    except LatheError as error:
        answer.write_text(str(error), errors="replace")
        code = _REFUSED + error.exit_code if error.exit_code != 1 else _TRACEBACK
    except BaseException:
        answer.write_text(traceback.format_exc(), errors="replace")
    finally:
        os._exit(code)
