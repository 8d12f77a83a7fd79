"""What the commands do; imported only when one of them runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from pipeline.cli.output import print_json
from pipeline.errors import RecipeError, VerificationError
from pipeline.progress import ConsoleReporter

if TYPE_CHECKING:
    from devices.measurement import Interval
    from pipeline.bundle import TargetVerification
    from pipeline.run import RunResult


def run_recipe(
    recipe: str | None, work: str, settings: list[str], db: str | None, *, anew: bool, as_json: bool
) -> None:
    """``lathe run``."""
    from pipeline.recipe.loading import load_recipe
    from pipeline.run import run
    from pipeline.work.folder import WorkFolder

    _quiet_libraries()
    loaded, text = load_recipe(recipe, settings)
    result = run(loaded, text, WorkFolder(Path(work), anew=anew), db, ConsoleReporter())
    if as_json:
        print_json(result.to_json())
        return
    sys.stdout.write(_summary(result))


def search_recipe(
    recipe: str | None, work: str, settings: list[str], db: str | None, *, anew: bool, as_json: bool
) -> None:
    """``lathe search``."""
    from pipeline.cli.run.search_text import search_text
    from pipeline.recipe.loading import load_recipe
    from pipeline.run import search
    from pipeline.work.folder import WorkFolder

    _quiet_libraries()
    loaded, text = load_recipe(recipe, settings)
    result = search(loaded, text, WorkFolder(Path(work), anew=anew), db, ConsoleReporter())
    if as_json:
        print_json(result.to_json())
        return
    sys.stdout.write(search_text(result))


def verify_folder(bundle: str, as_json: bool) -> None:
    """``lathe verify``; exits with the code of a failed verification when a promise does not hold."""
    from pipeline.bundle import verify_bundle

    _quiet_libraries()
    with ConsoleReporter().task(f"verifying {bundle}", "targets") as advance:
        result = verify_bundle(Path(bundle), advance)
    failed = {
        target.verdict.target: _why_not(target)
        for target in result.targets
        if not (target.accuracy_holds and target.verdict.acceptable)
    }
    if failed:
        raise VerificationError(
            f"the bundle {bundle} does not hold on {', '.join(failed)}",
            why="; ".join(failed.values()),
            fix="leave the device to the measurement alone and verify again; if it stays so, build it anew",
        )
    if as_json:
        print_json(result.to_json())
        return
    console = Console(highlight=False, markup=False)
    console.print(f"{bundle}: every file is unchanged", soft_wrap=True)
    for target in result.targets:
        verdict = target.verdict
        console.print(
            f"{verdict.target}: holds, {verdict.accuracy:.2%} on the test split; {verdict.why}",
            soft_wrap=True,
        )


def _why_not(target: TargetVerification) -> str:
    """Why a target's promise does not hold."""
    verdict = target.verdict
    if target.accuracy_holds:
        return verdict.why
    return f"{verdict.correct} test images are correct on {verdict.target}, not {target.expected_correct}"


def _summary(result: RunResult) -> str:
    """What a finished run has to say, as text."""
    verified = result.winner.verified
    over = [name for name, verdict in verified.verdicts.items() if not verdict.feasible]
    kept = f"every budget but the soft one of {' and '.join(over)}" if over else "every budget"
    lines = [f"{result.recipe.name}: the student keeps {kept}"]
    for name, verdict in verified.verdicts.items():
        ratio = f", {verdict.ratio} of the reference network's" if verdict.ratio else ""
        whole = result.tables.teacher[name].whole
        lines += [
            "",
            name,
            f"  budget    {verdict.budget}",
            f"  latency   {verdict.measurement.latency} measured{ratio}",
            f"  teacher   {_beside_teacher(whole, verdict.measurement.latency)}",
            f"  accuracy  {verdict.accuracy:.2%} on the test split, teacher {verified.teacher_accuracy:.2%}",
        ]
    return "\n".join([*lines, "", f"bundle  {result.bundle}", f"report  {result.report}", ""])


def _beside_teacher(teacher: Interval | None, student: Interval) -> str:
    """The teacher's latency, and what the student gains; measured with the blocks, not side by side."""
    if teacher is None:
        return "could not be exported or run there"
    factor = teacher.value_ns / student.value_ns
    gain = f"{factor:.2f} times the student's" if factor > 1 else "faster than the student: lower the budget"
    return f"{teacher} measured, {gain}"


def show_recipes(name: str | None) -> None:
    """``lathe recipes``."""
    from pipeline.recipe.loading import EMBEDDED, embedded_text

    if name is None:
        for each in EMBEDDED:
            first = embedded_text(each).splitlines()[0].lstrip("# ")
            typer.echo(f"{each:15} {first}")
        return
    if name not in EMBEDDED:
        raise RecipeError(f"no embedded recipe is called '{name}'", fix=f"choose from {', '.join(EMBEDDED)}")
    typer.echo(embedded_text(name), nl=False)


def _quiet_libraries() -> None:
    """Keep the chatter of imported libraries off the terminal unless the user asks for it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_minloglevel", "3")
    if not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")
