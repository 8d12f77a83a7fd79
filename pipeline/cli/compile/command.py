"""What ``lathe compile`` does; imported only when it runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import typer

from devices.errors import LatheError
from devices.untrusted import toml_from
from pipeline.cli.compile.arguments import ChoiceOptions, ModelOptions
from pipeline.cli.compile.text import show
from pipeline.cli.libraries import let_waiting_threads_sleep, quiet_libraries
from pipeline.cli.output import error_json, print_json, write_error
from pipeline.compile import (
    BetweenOf,
    CompiledModel,
    Feeding,
    Objective,
    Place,
    Rules,
    Wish,
    compile_model,
    operations_of,
)
from pipeline.errors import UsageError, VerificationError
from pipeline.progress import ConsoleReporter
from pipeline.work.folder import WorkFolder


def compile_for(
    model: str,
    targets: Sequence[str],
    given: ModelOptions,
    rules: ChoiceOptions,
    *,
    ops: bool,
    out: str | None,
    work: str,
    db: str | None,
    as_json: bool,
) -> None:
    """``lathe compile``."""
    quiet_libraries()
    let_waiting_threads_sleep()
    wish = _wish(model, targets, given, rules)
    if out is not None:
        from pipeline.cli.compile.bundling import wish_for_bundle

        wish = wish_for_bundle(wish, Path(out))
    folder = WorkFolder(Path(work))
    with ConsoleReporter() as reporter, folder.opened(), _history(db) as history:
        found = compile_model(wish, folder, reporter, history)
        profiles = operations_of(found, folder, reporter) if ops else {}
        chosen = not found.errors and all(raced.chosen is not None for raced in found.raced.values())
        document: dict[str, Any] = {}
        if as_json or out is not None:
            from pipeline.cli.compile.documents import compiled_json

            document = compiled_json(found, profiles, folder)
        bundle: Path | LatheError | None = None
        if out is not None and chosen:
            from pipeline.cli.compile.bundling import write_to
            from pipeline.stages.delivery.compiled_bundle import CompiledBundle

            bundle = write_to(Path(out), CompiledBundle(found, wish, folder, reporter), document)
    if bundle is not None:
        document["bundle"] = error_json(bundle) if isinstance(bundle, LatheError) else str(bundle)
    if as_json:
        print_json(document)
    else:
        show(found, profiles, folder, bundle)
    _end(found, bundle)


@contextmanager
def _history(db: str | None) -> Iterator[Callable[[], BetweenOf]]:
    """What the database knows of devices; it is opened when that is asked for, which takes a while."""
    with ExitStack() as opened:

        def history() -> BetweenOf:
            from latency_db.history import history_of
            from latency_db.store import open_store

            store = opened.enter_context(open_store(db))
            return lambda device: history_of(store, device).between

        yield history


def _end(found: CompiledModel, bundle: Path | LatheError | None) -> None:
    """Tell of what failed, and end with its code."""
    if isinstance(bundle, LatheError):
        write_error(bundle)
        raise typer.Exit(bundle.exit_code)
    for place, error in found.errors.items():
        sys.stderr.write(f"on {place}: ")
        write_error(error)
    for error in found.errors.values():
        raise typer.Exit(error.exit_code)
    if any(raced.chosen is None for raced in found.raced.values()):
        raise typer.Exit(VerificationError.exit_code)


def _wish(model: str, targets: Sequence[str], given: ModelOptions, rules: ChoiceOptions) -> Wish:
    mean, std = _numbers("--mean", given.mean, (0.0,)), _numbers("--std", given.std, (1.0,))
    if (
        not all(map(math.isfinite, mean + std))
        or min(std) <= 0
        or 1 < min(len(mean), len(std)) != max(len(mean), len(std))
    ):
        raise UsageError(
            "--mean and --std do not fit together",
            why="each takes one finite number, or one for each channel, and --std only numbers above 0",
        )
    if given.weights_key is not None and given.weights is None:
        raise UsageError(
            f"--weights-key '{given.weights_key}' is of no file", fix="give the checkpoint with --weights"
        )
    return Wish(
        model,
        tuple(dict.fromkeys(Place.parse(each) for each in targets)),
        Path(given.data) if given.data is not None else None,
        Feeding(mean, std),
        Rules(Objective(rules.objective), rules.max_drop, rules.budget_ms, rules.force),
        _arguments(given.arguments or ()),
        Path(given.weights) if given.weights is not None else None,
        given.weights_key,
        _shape(given.input_shape),
        rules.fine_tuning_epochs,
        given.task,
    )


def _numbers(option: str, text: str | None, default: tuple[float, ...]) -> tuple[float, ...]:
    try:
        return default if text is None else tuple(float(each) for each in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text!r} is no list of numbers", fix="write 0.485,0.456,0.406") from None


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    sizes = text.lower().split("x")
    if not all(each.isdecimal() and 0 < int(each) < 100_000 for each in sizes):
        raise UsageError(f"--input-shape {text!r} is no shape", fix="write 3x224x224")
    return tuple(int(each) for each in sizes)


def _arguments(texts: Sequence[str]) -> dict[str, Any]:
    try:
        return toml_from("\n".join(texts))
    except ValueError as error:
        raise UsageError(
            f"--argument {' '.join(texts)} cannot be understood",
            why=str(error),
            fix="write it as in TOML, for example --argument depth=56 or --argument \"name='small'\"",
        ) from error
