"""Arguments of ``lathe table`` and what its commands do: measure, model, check and hand on a table."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.help import Commands
from pipeline.cli.options import Database, Json
from pipeline.cli.output import print_json
from pipeline.cli.table.options import (
    BenchOptions,
    Classes,
    Launches,
    Networks,
    OneTarget,
    SpaceName,
    SpaceOptions,
    TableName,
    Targets,
    block_texts,
    named_tables,
    parsed,
    reporter,
    with_options,
)
from pipeline.cli.table.predict import predict
from pipeline.cli.table.text import difference_text, shown_text, table_line, verified_text
from pipeline.cli.table.transfer import transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.spaces.base import Space
    from pipeline.tables.bench import Bench
    from pipeline.tables.building import SpaceTable

table_app = Commands("Build latency tables of a search space, and predict with them.")

Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="HxW", help="Size of an input image, e.g. 32x32; may be repeated."),
]


@table_app.add(
    "build",
    "lathe table build --target host/onnxruntime:fp32@1",
    "lathe table build --space mine.toml --input 32x32 --target pi5/litert:fp32@4 --budget-time 30",
)
@with_options
def build(
    target: Targets,
    *,
    space: SpaceName = "mobile",
    input_shape: Inputs = None,
    classes: Classes = 10,
    networks: Networks = 60,
    budget_time: Annotated[
        float | None,
        typer.Option(
            "--budget-time", metavar="MINUTES", min=0, help="Begin no measurement after so many minutes."
        ),
    ] = None,
    bench_options: BenchOptions,
    json_output: Json = False,
) -> None:
    """Measure a space's blocks, and fit a model of networks.

    Every distinct block is measured, and some whole networks from which the model is fitted. What is in
    the database is not measured again, and every outcome is kept at once: the same command continues where
    it was stopped. Targets whose runtimes load one format share the exports. A block that cannot run is
    kept with its reason.
    """
    from pipeline.tables.building import build as build_tables
    from pipeline.tables.exchange import table_json
    from pipeline.tables.request import find_space

    budget_s = None if budget_time is None else budget_time * 60
    documents = []
    with bench_options.opened() as bench:
        targets = parsed(target)
        for shape in input_shape or ["32x32"]:
            found = find_space(space, shape, classes)
            built = build_tables(found, targets, bench, networks=networks, budget_s=budget_s)
            for each in targets:
                documents.append({"input": shape, **table_json(built[each].model, block_texts(found))})
                if not json_output:
                    typer.echo(f"{shape} {table_line(built[each].model)}")
    if json_output:
        print_json({"tables": documents})


@table_app.add("show", "lathe table show --target host/onnxruntime:fp32@1", "lathe table show pi5.json")
@with_options
def show(
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="A file of lathe table export.")] = None,
    *,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="T", help="Instead of a file: a target with a table in the database."
        ),
    ] = None,
    space_options: SpaceOptions,
    bench_options: BenchOptions,
    json_output: Json = False,
) -> None:
    """Show a table's blocks, failures and model.

    A file needs no database, device or torch; --space, --input and --classes are for a target.
    """
    from pipeline.tables.exchange import table_json

    if (file is None) == (target is None):
        raise typer.BadParameter("give a file, or --target")
    [content] = named_tables([file or target or ""], space_options, bench_options)
    if json_output:
        print_json(table_json(content.model, content.blocks))
    else:
        typer.echo(shown_text(content.model, content.blocks))


@table_app.add("verify", "lathe table verify --target host/onnxruntime:fp32@1 --count 40")
@with_options
def verify(
    target: OneTarget,
    *,
    space_options: SpaceOptions,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=3, help="Networks to measure, twice each.")
    ] = 20,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Seed of the networks that are drawn.")
    ] = 1,
    bench_options: BenchOptions,
    json_output: Json = False,
) -> None:
    """Compare a table's estimates with new measurements.

    Random networks that the model has not seen are measured. Beside the model stand what measuring the
    same networks twice can reach (the noise ceiling), and simpler predictions: the plain sum of the
    blocks, and lines fitted to that sum and to multiply-accumulates.
    """
    from pipeline.tables.validation import verify as verify_table

    with _loaded(target, space_options, bench_options) as (bench, found, built):
        verified = verify_table(found, built.table.target, built, bench, count=count, seed=seed)
    if json_output:
        print_json(verified.to_json())
    else:
        typer.echo(verified_text(verified))


@table_app.add("export", "lathe table export pi5.json --target pi5/litert:fp32@4")
@with_options
def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON file to write.")],
    target: OneTarget,
    *,
    space_options: SpaceOptions,
    bench_options: BenchOptions,
) -> None:
    """Write a table with its model to one file.

    Predictions from such a file need no database and no device.
    """
    from pathlib import Path

    from pipeline.tables.exchange import write_table

    with _loaded(target, space_options, bench_options) as (_, found, built):
        write_table(Path(file), built.model, found.description, block_texts(found))
    typer.echo(f"{file}: {table_line(built.model)}")


@table_app.add("diff", "lathe table diff before.json after.json")
@with_options
def diff(
    first: TableName,
    second: TableName,
    *,
    space_options: SpaceOptions,
    bench_options: BenchOptions,
    json_output: Json = False,
) -> None:
    """Compare two tables block by block.

    They may be of one target at two times, or of two targets. Files need no database; --space, --input
    and --classes are for targets.
    """
    from dataclasses import asdict

    from pipeline.tables.exchange import difference

    one, other = named_tables([first, second], space_options, bench_options)
    found = difference(one.model.table, other.model.table)
    if json_output:
        print_json(asdict(found))
    else:
        typer.echo(difference_text(found))


@table_app.add("plan", "lathe table plan package --target pi5/litert:fp32@4")
@with_options
def plan(
    package: Annotated[str, typer.Argument(metavar="PACKAGE", help="New folder to write.")],
    target: OneTarget,
    *,
    space_options: SpaceOptions,
    networks: Networks = 60,
    launches: Launches = 5,
) -> None:
    """Export a table's blocks, to be measured elsewhere.

    The result is a work package, which lathe table measure measures on a machine without torch. The
    device of the target is not contacted; its runtime and precision decide what is exported.
    """
    from pathlib import Path

    from pipeline.tables.work_package import write_plan

    found = space_options.find()
    manifest = write_plan(
        Path(package), found, parsed([target])[0], networks=networks, launches=launches, reporter=reporter()
    )
    failed = sum(item.reason is not None for item in manifest.items)
    typer.echo(f"{package}: {len(manifest.items)} workloads, {failed} of which cannot be exported")
    sys.stderr.write(f"next, on the machine that measures: lathe table measure {package} --target {target}\n")


@table_app.add("measure", "lathe table measure package --target pi5/litert:fp32@4")
def measure(
    package: Annotated[str, typer.Argument(metavar="PACKAGE", help="Folder that lathe table plan wrote.")],
    target: OneTarget,
    *,
    db: Database = None,
    json_output: Json = False,
) -> None:
    """Measure the work package of lathe table plan.

    torch is not needed. Every outcome is kept at once, so the same command continues where it was stopped.
    Take the rows back with lathe db export and import, or lathe db merge.
    """
    from pathlib import Path

    from devices.measurement import MeasurementFailure
    from latency_db.store import open_store
    from latency_db.tables import is_settled, measure_package

    (where,) = parsed([target])
    told = reporter()
    with open_store(db) as store, told.task(f"measuring {package} on {where}", "workloads") as advance:
        outcomes = measure_package(Path(package), where, store=store, on_progress=advance, on_state=told.note)
    failures = [each for each in outcomes.values() if isinstance(each, MeasurementFailure)]
    missing = sum(each.passing for each in failures)
    failed = len(failures) - missing
    disturbed = sum(not is_settled(each) for each in outcomes.values()) - missing
    if json_output:
        counts = {"failed": failed, "missing": missing, "disturbed": disturbed}
        print_json({"target": str(where), "workloads": len(outcomes), **counts})
    else:
        said = f"{where}: {len(outcomes)} workloads, {failed} of which cannot run"
        said += f", {missing} missing: run again to measure them" if missing else ""
        typer.echo(said + (f", {disturbed} disturbed" if disturbed else ""))


@contextmanager
def _loaded(
    target: str, space_options: SpaceOptions, bench_options: BenchOptions
) -> Iterator[tuple[Bench, Space, SpaceTable]]:
    """The table of one target from the database."""
    from pipeline.tables.building import load

    with bench_options.opened(must_exist=True) as bench:
        found = space_options.find()
        yield bench, found, load(found, parsed([target])[0], bench)


table_app.add(
    "predict",
    "lathe table predict pi5.json --count 10",
    "lathe table predict host/onnxruntime:fp32@1 --architecture networks.json",
)(predict)
table_app.add(
    "transfer", "lathe table transfer --from host/onnxruntime:fp32@1 --to pi5/litert:fp32@4 --samples 20"
)(transfer)
