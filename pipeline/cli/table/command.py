"""What ``lathe table`` does; imported only when one of its commands runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from devices.measurement import MeasuringProtocol
from devices.measuring import adapted, probe
from devices.target import Target
from latency_db.models import NetworkModel
from latency_db.store import open_store
from latency_db.tables import TableKey, measure_package
from pipeline.cli.output import print_json
from pipeline.cli.table.documents import measured_json, transferred_json
from pipeline.cli.table.text import (
    difference_text,
    measured_text,
    planned_text,
    predictions_text,
    shown_text,
    table_line,
    transferred_text,
    verified_text,
)
from pipeline.progress import ConsoleReporter
from pipeline.spaces.base import Space
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.space_table import SpaceTable, build, load
from pipeline.tables.exchange.difference import difference
from pipeline.tables.exchange.documents import Content
from pipeline.tables.exchange.table_file import read_table, table_file, table_json, write_table
from pipeline.tables.exchange.work_package import write_plan
from pipeline.tables.prediction.networks import drawn, landmarks, predict, predictions_json, written
from pipeline.tables.spaces import find_space, space_of
from pipeline.tables.transfer.estimates import check_place, write_estimates
from pipeline.tables.transfer.estimating import transfer
from pipeline.tables.transfer.sources import source_models
from pipeline.tables.validation import table as table_validation
from pipeline.tables.validation import transfer as transfer_validation

if TYPE_CHECKING:
    from pipeline.cli.table.arguments import BenchOptions, SpaceOptions


@dataclass(frozen=True)
class Asked:
    """Which networks ``lathe table predict`` is asked for.

    Attributes:
        architectures: networks as texts, or files of such.
        count: so many random ones.
        seed: of these.
        holds_for: a target for which the table must hold.
    """

    architectures: Sequence[str]
    count: int | None
    seed: int
    holds_for: str | None


@dataclass(frozen=True)
class Wanted:
    """What ``lathe table transfer`` is to do.

    Attributes:
        samples: blocks and networks to measure.
        save: file of estimates to write.
        check: so many other networks to compare.
        seed: of these.
    """

    samples: int
    save: str | None
    check: int | None
    seed: int


def build_tables(
    spaces: Sequence[SpaceOptions],
    targets: Sequence[str],
    networks: int,
    budget_minutes: float | None,
    bench_options: BenchOptions,
    *,
    as_json: bool,
) -> None:
    """``lathe table build``."""
    budget_s = None if budget_minutes is None else budget_minutes * 60
    documents = []
    with _bench(bench_options) as bench:
        where = _parsed(targets)
        for options in spaces:
            space = _space(options)
            built = build(space, where, bench, networks=networks, budget_s=budget_s)
            for each in where:
                model = built[each].model
                documents.append({"input": options.input_shape, **table_json(model, _block_texts(space))})
                if not as_json:
                    typer.echo(f"{options.input_shape} {table_line(model)}")
    if as_json:
        print_json({"tables": documents})


def show_table(name: str, space_options: SpaceOptions, bench_options: BenchOptions, *, as_json: bool) -> None:
    """``lathe table show``."""
    [content] = _named_tables([name], space_options, bench_options)
    if as_json:
        print_json(table_json(content.model, content.blocks))
    else:
        typer.echo(shown_text(content.model, content.blocks))


def verify_table(
    target: str,
    space_options: SpaceOptions,
    bench_options: BenchOptions,
    *,
    count: int,
    seed: int,
    as_json: bool,
) -> None:
    """``lathe table verify``."""
    with _loaded(target, space_options, bench_options) as (bench, space, built):
        verified = table_validation.verify(space, built.table.target, built, bench, count=count, seed=seed)
    if as_json:
        print_json(verified.to_json())
    else:
        typer.echo(verified_text(verified))


def export_table(file: str, target: str, space_options: SpaceOptions, bench_options: BenchOptions) -> None:
    """``lathe table export``."""
    with _loaded(target, space_options, bench_options) as (_, space, built):
        write_table(Path(file), built.model, space.description, _block_texts(space))
    typer.echo(f"{file}: {table_line(built.model)}")


def compare_tables(
    first: str, second: str, space_options: SpaceOptions, bench_options: BenchOptions, *, as_json: bool
) -> None:
    """``lathe table diff``."""
    one, other = _named_tables([first, second], space_options, bench_options)
    found = difference(one.model.table, other.model.table)
    if as_json:
        print_json(asdict(found))
    else:
        typer.echo(difference_text(found))


def plan_package(
    package: str, target: str, space_options: SpaceOptions, *, networks: int, launches: int
) -> None:
    """``lathe table plan``."""
    space = _space(space_options)
    (where,) = _parsed([target])
    reporter = ConsoleReporter()
    manifest = write_plan(
        Path(package), space, where, networks=networks, launches=launches, reporter=reporter
    )
    typer.echo(planned_text(package, manifest))
    sys.stderr.write(f"next, on the machine that measures: lathe table measure {package} --target {target}\n")


def measure_workloads(package: str, target: str, db: str | None, *, trust: bool, as_json: bool) -> None:
    """``lathe table measure``."""
    (where,) = _parsed([target])
    reporter = ConsoleReporter()
    with open_store(db) as store, reporter.task(f"measuring {package} on {where}", "workloads") as advance:
        outcomes = measure_package(
            Path(package),
            where,
            store=store,
            on_progress=advance,
            on_state=reporter.note,
            trusting=trust,
        )
    document = measured_json(where, outcomes.values())
    if as_json:
        print_json(document)
    else:
        typer.echo(measured_text(document))


def predict_networks(
    table: str,
    asked: Asked,
    space_options: SpaceOptions,
    bench_options: BenchOptions,
    *,
    as_json: bool,
) -> None:
    """``lathe table predict``."""
    [content] = _named_tables([table], space_options, bench_options)
    model = content.model
    if asked.holds_for is not None:
        target = Target.parse(asked.holds_for)
        protocol = adapted(MeasuringProtocol(launches=bench_options.launches), target)
        model.table.require_key(TableKey.of(*probe(target), protocol))
    space = _space(space_options) if table_file(table) is None else space_of(content.space)
    given = [each for text in asked.architectures for each in written(space, text)]
    networks = {f"given {number}": network for number, network in enumerate(given, 1)}
    networks |= drawn(space, asked.count, asked.seed) if asked.count else {}
    predictions = predict(space, model, networks or landmarks(space, model))
    if as_json:
        print_json(predictions_json(model, predictions))
    else:
        typer.echo(predictions_text(model, predictions))


def transfer_tables(
    sources: Sequence[str],
    target: str,
    wanted: Wanted,
    space_options: SpaceOptions,
    bench_options: BenchOptions,
    *,
    as_json: bool,
) -> None:
    """``lathe table transfer``."""
    if wanted.save is not None:
        check_place(Path(wanted.save))
    (where,) = _parsed([target])
    space = _space(space_options)
    names = _block_texts(space)
    with _bench(bench_options) as bench:
        models = source_models(space, sources, where, bench)
        found = transfer(space, where, models, bench, samples=wanted.samples)
        if wanted.save is not None:
            write_estimates(Path(wanted.save), found.model, space.description, names)
        checked = (
            transfer_validation.check(space, found, models, bench, count=wanted.check, seed=wanted.seed)
            if wanted.check is not None
            else None
        )
    if as_json:
        document = transferred_json(found, names)
        print_json(document if checked is None else {**document, "check": checked.to_json()})
        return
    typer.echo(transferred_text(found, names))
    if checked is not None:
        typer.echo(verified_text(checked))


def _space(options: SpaceOptions) -> Space:
    return find_space(options.space, options.input_shape, options.classes)


@contextmanager
def _bench(options: BenchOptions, *, must_exist: bool = False) -> Iterator[Bench]:
    """The bench, while its database is open; with ``must_exist`` no database is made."""
    with open_store(options.db, must_exist=must_exist) as store:
        yield Bench(store, MeasuringProtocol(launches=options.launches), ConsoleReporter())


@contextmanager
def _loaded(
    target: str, space_options: SpaceOptions, bench_options: BenchOptions
) -> Iterator[tuple[Bench, Space, SpaceTable]]:
    """The table of one target from the database."""
    space = _space(space_options)
    with _bench(bench_options, must_exist=True) as bench:
        yield bench, space, load(space, _parsed([target])[0], bench)


def _named_tables(
    names: Sequence[str], space_options: SpaceOptions, bench_options: BenchOptions
) -> list[Content[NetworkModel]]:
    """Tables by files of ``lathe table export``, or by targets, for which the database is opened.

    Raises:
        typer.BadParameter: the options of a space are given, and all names are files.
        LatheError: a file cannot be read, or the database has no such table.
    """
    files = [table_file(name) for name in names]
    if all(files) and space_options.given:
        raise typer.BadParameter(
            "a file says itself which space it is of: leave out --space, --input, --classes"
        )
    return [
        _stored_table(name, space_options, bench_options) if file is None else read_table(file)
        for name, file in zip(names, files, strict=True)
    ]


def _stored_table(
    target: str, space_options: SpaceOptions, bench_options: BenchOptions
) -> Content[NetworkModel]:
    with _loaded(target, space_options, bench_options) as (_, space, built):
        return Content(built.model, space.description, _block_texts(space))


def _block_texts(space: Space) -> dict[str, str]:
    """What the space's blocks are, by identity."""
    return {block.identity: str(block) for block in space.distinct_blocks()}


def _parsed(targets: Sequence[str]) -> list[Target]:
    """Targets, each once."""
    return list(dict.fromkeys(map(Target.parse, targets)))
