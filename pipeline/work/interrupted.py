"""Stages that were interrupted, and a recipe that changed since: what was begun is not dropped unasked."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import WorkFolderError
from pipeline.work.disk import write_atomically

_ASKED = "asked.json"
_GIVEN_UP = "given-up"
_SHOWN = 8


def begin(folder: Path, asked: Mapping[str, Any], beginnings: str, *, anew: bool) -> None:
    """Note in a stage's folder what is asked of it; refuse to begin beside one that another recipe began.

    One with the same beginnings is gone on with: its folder becomes this one.

    Args:
        folder: of the stage, ``NAME-DIGEST``; those of other inputs lie beside it.
        asked: what of the recipe decides beginnings, as JSON. Recipes of another name do not matter.
        beginnings: digest of what decides what the stage leaves in its folder while it works.
        anew: give up the interrupted ones. Their folders stay, and are gone on with if they are asked for.

    Raises:
        WorkFolderError: a stage is interrupted that was begun with another recipe of that name.
    """
    (folder / _GIVEN_UP).unlink(missing_ok=True)
    if (folder / _ASKED).exists():
        return
    name = folder.name.rpartition("-")[0]
    others = dict(_interrupted(folder.parent, name, asked))
    for other, before in others.items():
        if before["beginnings"] == beginnings and not folder.exists():
            other.rename(folder)
            _note(folder, asked, beginnings)
            return
    if not anew:
        for before in others.values():
            _refuse_change(name, before["recipe"], asked)
    for other, before in others.items():
        if before["recipe"] != asked:
            (other / _GIVEN_UP).touch()
    _note(folder, asked, beginnings)


def require_unchanged(stages: Path, names: Collection[str], asked: Mapping[str, Any]) -> None:
    """Refuse a recipe that would drop what another of its name began.

    Args:
        stages: where the folders of stages lie.
        names: of the stages that the recipe will begin.
        asked: as for ``begin``.

    Raises:
        WorkFolderError: one of them is interrupted that was begun with another recipe of that name.
    """
    for name in names:
        for _, before in _interrupted(stages, name, asked):
            _refuse_change(name, before["recipe"], asked)


def _note(folder: Path, asked: Mapping[str, Any], beginnings: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _ASKED, json.dumps({"recipe": asked, "beginnings": beginnings}).encode())


def _refuse_change(name: str, before: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    differences = list(_differences(before, asked, ""))
    if not differences:
        return
    more = [f"and {len(differences) - _SHOWN} more"] if len(differences) > _SHOWN else []
    raise WorkFolderError(
        f"the {name} of {asked['name']} was interrupted, and its recipe has changed since",
        why="; ".join(differences[:_SHOWN] + more),
        fix="undo the change to continue it; give another folder with --work; or begin anew "
        "with --anew, which uses again what does not depend on the change",
    )


def _interrupted(
    stages: Path, name: str, asked: Mapping[str, Any]
) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Stages of that name that neither ended nor were given up, with what a recipe of the same name noted."""
    for folder in sorted(stages.glob(f"{name}-*")):
        if (folder / "result.json").exists() or (folder / _GIVEN_UP).exists():
            continue
        try:
            noted = json.loads((folder / _ASKED).read_text())
            if isinstance(noted["beginnings"], str) and noted["recipe"]["name"] == asked["name"]:
                yield folder, noted
        except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
            continue


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
