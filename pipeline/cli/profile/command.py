"""What ``lathe profile`` and ``lathe compare`` do; imported only when one of them runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import typer

from devices.artifacts import input_names
from devices.errors import LatheError, MeasurementError
from devices.host import temporary_folder
from devices.inputs import Given, given_from
from devices.inventory import connected, runtime_of
from devices.measurement import (
    BetweenBatches,
    Measurement,
    MeasurementFailure,
    MeasuringProtocol,
    Outcome,
    Verdict,
)
from devices.measuring import LAUNCHES as COMPARE_LAUNCHES
from devices.measuring import Comparison, Job, compare, measure
from devices.requests import profile_operations, sustain
from devices.result_file import Entry, Result, ResultFile
from devices.runtimes import Runtime
from devices.target import Target
from devices.trust import trusted_files
from devices.words import listed
from latency_db.history import PRIOR
from latency_db.tables import default_measurer, wait_for_quiet
from pipeline.cli.output import print_json
from pipeline.cli.profile.documents import entry_json
from pipeline.cli.profile.keeping import Keeper, keeper
from pipeline.cli.profile.text import printable, show
from pipeline.errors import RecipeError, WorkFolderError
from pipeline.progress import ConsoleReporter
from pipeline.report import render_profile

MAX_MINUTES = 24 * 60
DATABASE = "the latency database"
SPREAD_LAUNCHES = 15
"""Launches that are spread over a time, unless it is said how many."""


@dataclass(frozen=True)
class Wanted:
    """What ``lathe profile`` is asked for besides latencies.

    Attributes:
        launches: at least so many; ``None`` for the protocol's own number.
        operations: profile them too.
        minutes: run each model without pause for so long; ``None`` for not at all.
        full_delegation: a model of which a part fell back has failed.
        timeout_s: how long a model may take in one launch.
        trust: models that are programs are trusted.
        spread_s: the time over which launches are spread; ``None`` for one after the other.
        patience_s: how long to wait for a quiet device; ``None`` for not at all.
    """

    launches: int | None
    operations: bool
    minutes: float | None
    full_delegation: bool
    timeout_s: float
    trust: bool
    spread_s: float | None = None
    patience_s: float | None = None

    @property
    def protocol(self) -> MeasuringProtocol:
        """How latencies are measured; launches that are spread may differ as the machine does."""
        if self.spread_s is None:
            return _protocol(self.launches or MeasuringProtocol().launches)
        launches = self.launches or SPREAD_LAUNCHES
        return replace(
            MeasuringProtocol(),
            launches=launches,
            max_launches=launches,
            spread_ns=round(1e9 * self.spread_s),
        )


@dataclass(frozen=True)
class Inputs:
    """The options that give inputs, as they are written."""

    shapes: tuple[str, ...] = ()
    fills: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    signature: str = ""

    @contextmanager
    def given(self, models: Sequence[str]) -> Iterator[tuple[Given, ...]]:
        """What models are given, once for each shape of a sweep; files are there until the block ends.

        Args:
            models: files, whose inputs are named.

        Raises:
            MeasurementError: an option is badly written, or a file cannot be read.
        """
        with temporary_folder("inputs") as folder:
            names = {name for model in models for name in input_names(Path(model))}
            yield given_from(self.shapes, self.fills, self.files, self.signature, folder, names=names)


@dataclass(frozen=True)
class Refused:
    """A target or a model of the command line that could not be used, and why."""

    subject: str
    is_model: bool
    error: LatheError


@dataclass
class Session:
    """What one command found: its results in order, and the targets and models that could not be used.

    Attributes:
        file: gets every result as soon as it is there; ``None`` without ``--save``.
        keeper: of the database, which gets every measurement and knows the devices.
        strict: a measurement whose verdict is not valid is a problem.
    """

    file: ResultFile | None
    keeper: Keeper
    strict: bool = False
    entries: list[Entry] = field(default_factory=list)
    problems: list[Refused] = field(default_factory=list)

    def add(self, models: Sequence[str], result: Result, signature: str = "") -> None:
        """Keep a result, first of all in memory."""
        self.entries.append(Entry(tuple(models), result))
        if self.file is not None:
            self.file.add(models, result)
        outcomes = list(zip(models, outcomes_of(result), strict=False))
        with self.problems_on(DATABASE):
            for model, outcome in outcomes:
                self.keeper.keep(model, signature, outcome)
        for model, outcome in outcomes:
            if self.strict and isinstance(outcome, Measurement) and outcome.verdict is not Verdict.VALID:
                self.problems.append(Refused(model, True, _not_valid(outcome)))

    def between(self, measurement: Measurement) -> BetweenBatches:
        """How far batches differ on the device of a measurement; the prior where the database fails."""
        with self.problems_on(DATABASE):
            return self.keeper.between(measurement)
        return PRIOR

    @contextmanager
    def problems_on(self, subject: object, *, is_model: bool = False) -> Iterator[None]:
        """Remember an error that a user can mend, and go on after the block."""
        try:
            yield
        except LatheError as error:
            self.problems.append(Refused(str(subject), is_model, error))

    @property
    def exit_code(self) -> int:
        """0, or that of the first thing that went wrong."""
        for problem in self.problems:
            return problem.error.exit_code
        for entry in self.entries:
            if any(isinstance(outcome, MeasurementFailure) for outcome in outcomes_of(entry.result)):
                return MeasurementError.exit_code
        return 0


def _not_valid(outcome: Measurement) -> MeasurementError:
    return MeasurementError(
        f"the measurement on {outcome.target} is {outcome.verdict.value}, and --strict is asked for",
        why="; ".join(reason.detail for reason in outcome.reasons),
        fix="repeat it when the device is quiet, for example with --wait-for-quiet 10m",
    )


def outcomes_of(result: Result) -> tuple[Outcome, ...]:
    """The latencies in a result, or why there are none: two of a comparison, none of a longer run."""
    if isinstance(result, Comparison):
        return result.first, result.second
    return (result,) if isinstance(result, Measurement | MeasurementFailure) else ()


def profile_models(
    models: Sequence[str],
    targets: Sequence[str],
    wanted: Wanted,
    inputs: Inputs,
    *,
    strict: bool,
    db: str | None,
    save: str | None,
    view: str | None,
    as_json: bool,
) -> None:
    """``lathe profile``; a target or file that cannot be used keeps no other from being measured."""
    if wanted.minutes is not None and not 0 < wanted.minutes <= MAX_MINUTES:
        raise RecipeError(
            f"--sustained {wanted.minutes:g} is not a time that a model can be run for",
            why=f"it takes minutes, above 0 and up to {MAX_MINUTES}",
        )
    if view is not None and Path(view).is_dir():
        raise RecipeError(f"--view {view} is a folder", fix="name a file, such as page.html")
    reporter = ConsoleReporter()
    with inputs.given(models) as given, _session(save, db, strict) as session, ExitStack() as opened:
        usable = _targets(targets, session)
        files = _files(models, session, reporter, opened, trust=wanted.trust)
        for target, chosen in _plan(list(files), usable, session).items():
            with session.problems_on(target):
                jobs = {
                    Job(str(path) if len(given) == 1 else f"{path} {number}", files[path], each): path
                    for path in chosen
                    for number, each in enumerate(given)
                }
                _profile_on(target, jobs, wanted, session, reporter)
        if len(session.problems) == 1 and not session.entries:
            raise session.problems[0].error
        _finish(session, save, as_json, view)


def compare_models(
    first: str,
    second: str,
    targets: Sequence[str],
    inputs: Inputs,
    *,
    launches: int | None,
    patience_s: float | None,
    strict: bool,
    timeout_s: float,
    trust: bool,
    db: str | None,
    save: str | None,
    as_json: bool,
) -> None:
    """``lathe compare``."""
    if len(targets) > 1:
        raise RecipeError(
            f"one comparison takes one target, and {len(targets)} are given: {', '.join(targets)}",
            why="two files are compared in the same launches, which are of one runtime on one device",
            fix=f"measure each by itself: lathe profile {first} {second} "
            + " ".join(f"--target {target}" for target in targets),
        )
    where = Target.parse(targets[0])
    runtime = runtime_of(where)
    for path in (Path(first), Path(second)):
        _require_file(path)
        _require_loaded(path, {where: runtime})
    protocol = _protocol(launches or COMPARE_LAUNCHES)
    with inputs.given((first, second)) as given, _session(save, db, strict) as session:
        if len(given) > 1:
            raise RecipeError(
                "a comparison has one shape of each input",
                why=f"{len(given)} shapes of one input are given",
                fix="compare at one shape, or measure a sweep with lathe profile",
            )
        with (
            trusted_files([Path(first), Path(second)], trusting=trust) as files,
            ConsoleReporter().task(f"comparing on {where}", "launches") as task,
        ):
            _wait(where, patience_s, task.say)
            found = compare(
                files[Path(first)],
                files[Path(second)],
                where,
                protocol,
                given=given[0],
                on_progress=task,
                on_state=task.say,
                job_timeout_s=timeout_s,
            )
        session.add((first, second), found, inputs.signature)
        _finish(session, save, as_json)


def _profile_on(
    target: Target,
    jobs: Mapping[Job, Path],
    wanted: Wanted,
    session: Session,
    reporter: ConsoleReporter,
) -> None:
    """Everything that is asked of one target: latencies first, since what follows heats the device.

    Args:
        target: where.
        jobs: what is timed, each with the model that it is of.
        wanted: what is asked.
        session: gets the results.
        reporter: where to tell of progress.
    """
    protocol = wanted.protocol
    with connected(target.device) as connection:
        with reporter.task(f"timing on {target}", "launches") as task:
            _wait(target, wanted.patience_s, task.say)
            outcomes = measure(
                list(jobs),
                target,
                protocol,
                require_full_delegation=wanted.full_delegation,
                on_progress=task,
                on_state=task.say,
                job_timeout_s=wanted.timeout_s,
                connection=connection,
            )
        for job, path in jobs.items():
            session.add([str(path)], outcomes[job.name], job.given.signature)
        measured = [job for job in jobs if isinstance(outcomes[job.name], Measurement)]
        for job in measured if wanted.operations else ():
            reporter.note(f"  profiling the operations of {_shown(jobs[job], job)} on {target}")
            with session.problems_on(target):
                profiled = profile_operations(
                    job.artifact, target, protocol, given=job.given, connection=connection
                )
                session.add([str(jobs[job])], profiled)
        for job in measured if wanted.minutes is not None else ():
            with (
                session.problems_on(target),
                reporter.task(f"running {_shown(jobs[job], job)} on {target}", "windows") as advance,
            ):
                duration_ns = max(1, math.ceil((wanted.minutes or 0) * 60e9))
                run = sustain(
                    job.artifact,
                    target,
                    protocol,
                    duration_ns,
                    given=job.given,
                    on_progress=advance,
                    connection=connection,
                )
                session.add([str(jobs[job])], run)


def _wait(target: Target, patience_s: float | None, tell: Callable[[str], None]) -> None:
    if patience_s is not None:
        wait_for_quiet(default_measurer(), target, tell, patience_s=patience_s)


def _shown(path: Path, job: Job) -> str:
    """A job for people: its file, and the shapes that it is given."""
    return printable(f"{path} {job.given.shapes}".strip())


@contextmanager
def _session(save: str | None, db: str | None, strict: bool) -> Iterator[Session]:
    file = ResultFile(Path(save)) if save is not None else None
    with keeper(db) as opened:
        yield Session(file, opened, strict)


def _finish(session: Session, save: str | None, as_json: bool, view: str | None = None) -> None:
    """Print what was found, with a page if one is asked for; end with the code of what went wrong."""
    if view is not None:
        with session.problems_on(view):
            try:
                render_profile(session.entries, session.between, Path(view))
            except OSError as error:
                raise WorkFolderError(
                    f"the page {view} cannot be written",
                    why=str(error.strerror),
                    fix="name another file with --view",
                ) from error
            sys.stderr.write(f"page: {printable(view)}\n")
    if as_json:
        results = [entry_json(entry, session.between) for entry in session.entries]
        errors = [
            {
                "target": None if problem.is_model else problem.subject,
                "model": printable(problem.subject) if problem.is_model else None,
                "what": problem.error.what,
                "why": problem.error.why,
                "fix": problem.error.fix,
                "exit_code": problem.error.exit_code,
            }
            for problem in session.problems
        ]
        print_json({"results": results, "errors": errors, "saved": save if session.entries else None})
    else:
        show(session.entries, session.between)
    for problem in session.problems:
        where = "with" if problem.is_model else "on"
        sys.stderr.write(f"error {where} {printable(problem.subject)}: {problem.error}\n")
    if session.exit_code:
        raise typer.Exit(session.exit_code)


def _targets(texts: Sequence[str], session: Session) -> dict[Target, Runtime]:
    """The targets that are well written and known, each once, with their runtimes."""
    found: dict[Target, Runtime] = {}
    for text in dict.fromkeys(texts):
        with session.problems_on(text):
            target = Target.parse(text)
            found[target] = runtime_of(target)
    return found


def _files(
    models: Sequence[str], session: Session, reporter: ConsoleReporter, opened: ExitStack, *, trust: bool
) -> dict[Path, Path]:
    """The files that are there and may be loaded, each once, and what runs of each until ``opened`` ends."""
    found: dict[Path, Path] = {}
    files: dict[Path, Path] = {}
    for model in models:
        path = Path(model)
        with session.problems_on(model, is_model=True):
            _require_file(path)
            known = found.setdefault(path.resolve(), path)
            if known is not path:
                reporter.note(f"{printable(str(path))} is {printable(str(known))} once more: measured once")
                continue
            files |= opened.enter_context(trusted_files([path], trusting=trust))
    return files


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise MeasurementError(
            f"there is no file {str(path)!r}",
            why="it is a folder" if path.is_dir() else "",
            fix="check the name" + ("; write -- before it" if path.name.startswith("-") else ""),
        )


def _require_loaded(path: Path, targets: Mapping[Target, Runtime]) -> None:
    if not any(runtime.loads(path) for runtime in targets.values()):
        raise MeasurementError(
            f"{str(path)!r} can be measured on no target that is given",
            why=_kinds(targets),
            fix="name a --target whose runtime loads it; compare takes files of one format",
        )


def _kinds(targets: Mapping[Target, Runtime]) -> str:
    return "; ".join(
        f"{target} loads {listed(runtime.suffixes)} files" for target, runtime in targets.items()
    )


def _plan(
    paths: Sequence[Path], targets: Mapping[Target, Runtime], session: Session
) -> dict[Target, list[Path]]:
    """Which files each target measures: those that its runtime loads."""
    for path in paths if targets else ():
        with session.problems_on(path, is_model=True):
            _require_loaded(path, targets)
    plan = {target: [path for path in paths if runtime.loads(path)] for target, runtime in targets.items()}
    for target, chosen in plan.items() if any(plan.values()) else ():
        with session.problems_on(target):
            if not chosen:
                raise MeasurementError(
                    f"there is nothing to measure on {target}",
                    why=_kinds(targets),
                    fix="name a file that it loads, or leave this target out",
                )
    return {target: chosen for target, chosen in plan.items() if chosen}


def _protocol(launches: int) -> MeasuringProtocol:
    """The protocol with so many launches, and up to three times as many while they disagree."""
    return replace(MeasuringProtocol(), launches=launches, max_launches=3 * launches)
