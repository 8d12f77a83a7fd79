"""Stages that were interrupted, and a recipe that changed since: what was begun is not dropped unasked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import WorkFolderError
from pipeline.work.disk import write_atomically

_ASKED = "asked.json"
_GIVEN_UP = "given-up"
_SHOWN = 8


def begin(folder: Path, asked: Mapping[str, Any], *, anew: bool) -> None:
    """Note in a stage's folder what is asked of it; refuse to begin beside one that another recipe began.

    Args:
        folder: of the stage, ``NAME-DIGEST``; those of other inputs lie beside it.
        asked: the recipe as JSON. Recipes of another name do not matter.
        anew: give up the interrupted ones. Their folders stay, and are gone on with if they are asked for.

    Raises:
        WorkFolderError: a stage is interrupted that was begun with another recipe of that name.
    """
    (folder / _GIVEN_UP).unlink(missing_ok=True)
    if (folder / _ASKED).exists():
        return
    name = folder.name.rpartition("-")[0]
    for other in sorted(folder.parent.glob(f"{name}-*")):
        before = _interrupted(other)
        differences = list(_differences(before, asked, "")) if before.get("name") == asked["name"] else []
        if not differences:
            continue
        if not anew:
            more = [f"and {len(differences) - _SHOWN} more"] if len(differences) > _SHOWN else []
            raise WorkFolderError(
                f"the {name} of {asked['name']} was interrupted, and its recipe has changed since",
                why="; ".join(differences[:_SHOWN] + more),
                fix="undo the change to continue it; give another folder with --work; or begin anew "
                "with --anew, which uses again what does not depend on the change",
            )
        (other / _GIVEN_UP).touch()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _ASKED, json.dumps(asked).encode())


def _interrupted(folder: Path) -> Mapping[str, Any]:
    """What was asked of a stage that neither ended nor was given up; nothing of others."""
    if (folder / "result.json").exists() or (folder / _GIVEN_UP).exists():
        return {}
    try:
        asked = json.loads((folder / _ASKED).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return asked if isinstance(asked, Mapping) else {}


def _differences(before: Any, now: Any, where: str) -> Iterator[str]:
    """Every key whose value is another now, as ``search.evaluations: 30, was 20``."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for position, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _differences(one, other, f"{where}.{position}")
    elif before != now:
        yield f"{where}: {json.dumps(now)}, was {json.dumps(before)}"
