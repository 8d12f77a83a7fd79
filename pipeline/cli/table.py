"""``lathe table``: a space's latencies on a target, measured, modelled, checked and handed on."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devices.target import Target
    from latency_db.network_model import NetworkModel
    from latency_db.table import LatencyTable
    from pipeline.spaces.base import Space
    from pipeline.tables.building import Built
    from pipeline.tables.request import Bench
    from pipeline.tables.verification import Verified

table_app = typer.Typer(
    help="Latency tables: every block of a space measured on a target, and a model of whole networks.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
SpaceName = Annotated[
    str, typer.Option("--space", metavar="S", help="mobile, or a recipe file whose [space] is meant.")
]
Targets = Annotated[
    list[str], typer.Option("--target", metavar="T", help="Target, e.g. host/litert:fp32@1; repeatable.")
]
OneTarget = Annotated[str, typer.Option("--target", metavar="T", help="Target, e.g. host/litert:fp32@1.")]
Input = Annotated[str, typer.Option("--input", metavar="HxW", help="Input, e.g. 32x32 or 1x28x28.")]
Inputs = Annotated[
    list[str] | None, typer.Option("--input", metavar="HxW", help="Input, e.g. 32x32; repeatable.")
]
Classes = Annotated[int, typer.Option("--classes", min=1, help="Number of logits.")]
Networks = Annotated[int, typer.Option("--networks", min=6, help="Whole networks to measure for the model.")]
Launches = Annotated[int, typer.Option("--launches", min=3, help="Launches of each workload.")]
Db = Annotated[
    str | None, typer.Option("--db", metavar="URL", help="Latency database: a file or an SQLAlchemy URL.")
]


@table_app.command("build")
def build(
    target: Targets,
    *,
    space: SpaceName = "mobile",
    input_shape: Inputs = None,
    classes: Classes = 10,
    networks: Networks = 60,
    launches: Launches = 5,
    budget_time: Annotated[
        float | None,
        typer.Option(
            "--budget-time", metavar="MIN", min=0, help="Begin no measurement after so many minutes."
        ),
    ] = None,
    db: Db = None,
    json_output: Json = False,
) -> None:
    """Measure every distinct block of a space and some whole networks, and fit the network model.

    What is in the database is not measured again, and every outcome is kept at once: the same command goes on
    where it was stopped. Targets whose runtimes load one format share the exports. A block that cannot run is
    kept with its reason.
    """
    from pipeline.tables.building import build as build_tables
    from pipeline.tables.exchange import table_json
    from pipeline.tables.request import find_space

    budget_s = None if budget_time is None else budget_time * 60
    documents = []
    with _bench(db, launches) as bench:
        targets = _parsed(target)
        for shape in input_shape or ["32x32"]:
            found = find_space(space, shape, classes)
            built = build_tables(found, targets, bench, networks=networks, budget_s=budget_s)
            for each in targets:
                documents.append({"input": shape, **table_json(built[each].model, _names(found))})
                if not json_output:
                    typer.echo(f"{shape} {_summary(built[each].model)}")
    if json_output:
        print_json({"tables": documents})


@table_app.command("show")
def show(
    target: OneTarget,
    *,
    space: SpaceName = "mobile",
    input_shape: Input = "32x32",
    classes: Classes = 10,
    launches: Launches = 5,
    db: Db = None,
    json_output: Json = False,
) -> None:
    """Show a table from the database: every block's latency, what failed and why, and the network model."""
    from pipeline.tables.exchange import table_json

    with _loaded(target, space, input_shape, classes=classes, launches=launches, db=db) as (_, found, built):
        names = _names(found)
    if json_output:
        print_json(table_json(built.model, names))
        return
    for identity, row in sorted(built.table.rows.items(), key=lambda each: -each[1].value_ns):
        typer.echo(f"{row.value_ns / 1e6:9.4f} ms  {names[identity]}")
    for identity, reason in built.table.failed.items():
        typer.echo(f"cannot run    {names[identity]}: {reason.code}: {reason.detail}")
    typer.echo(_summary(built.model))


@table_app.command("verify")
def verify(
    target: OneTarget,
    *,
    space: SpaceName = "mobile",
    input_shape: Input = "32x32",
    classes: Classes = 10,
    count: Annotated[int, typer.Option("--count", min=3, help="Networks to measure, twice each.")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which networks are drawn.")] = 1,
    launches: Launches = 5,
    db: Db = None,
    json_output: Json = False,
) -> None:
    """Measure random networks that the model has not seen, and compare with its estimates.

    Beside the model stand what measuring the same networks twice can reach (the noise ceiling), and simpler
    predictions: the plain sum of the blocks, and lines fitted to that sum and to multiply-accumulates.
    """
    from pipeline.tables.verification import verify as verify_table

    with _loaded(target, space, input_shape, classes=classes, launches=launches, db=db) as (
        bench,
        found,
        built,
    ):
        verified = verify_table(found, built.table.target, built, bench, count=count, seed=seed)
    if json_output:
        print_json(verified.to_json())
    else:
        typer.echo(_verified_text(verified))


@table_app.command("export")
def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON file to write.")],
    target: OneTarget,
    *,
    space: SpaceName = "mobile",
    input_shape: Input = "32x32",
    classes: Classes = 10,
    launches: Launches = 5,
    db: Db = None,
) -> None:
    """Write a table with its network model to one file, which needs no database and no device to predict."""
    from pathlib import Path

    from pipeline.tables.exchange import write_table

    with _loaded(target, space, input_shape, classes=classes, launches=launches, db=db) as (_, found, built):
        write_table(Path(file), built.model, found.description, _names(found))
    typer.echo(f"{file}: {_summary(built.model)}")


@table_app.command("diff")
def diff(
    first: Annotated[str, typer.Argument(metavar="FILE", help="A file of lathe table export.")],
    second: Annotated[str, typer.Argument(metavar="FILE", help="Another.")],
    json_output: Json = False,
) -> None:
    """Compare two exported tables block by block: of one target at two times, or of two targets."""
    from dataclasses import asdict
    from pathlib import Path

    from pipeline.tables.exchange import difference, read_table

    found = difference(read_table(Path(first)).table, read_table(Path(second)).table)
    if json_output:
        print_json(asdict(found))
        return
    for line in found.key or ("measured under one key",):
        typer.echo(line)
    alone = f"{len(found.only_first)} only in the first, {len(found.only_second)} only in the second"
    typer.echo(f"{found.shared} blocks in both, {alone}")
    if found.median_ratio is not None:
        ranks = "undefined" if found.spearman is None else f"{found.spearman:.4f}"
        typer.echo(
            f"second over first: median {found.median_ratio:.3f}x, from {found.smallest_ratio:.3f}x to "
            f"{found.largest_ratio:.3f}x; Spearman {ranks}; {len(found.beyond)} beyond their intervals"
        )


@table_app.command("plan")
def plan(
    package: Annotated[str, typer.Argument(metavar="PACKAGE", help="New folder to write.")],
    target: OneTarget,
    *,
    space: SpaceName = "mobile",
    input_shape: Input = "32x32",
    classes: Classes = 10,
    networks: Networks = 60,
    launches: Launches = 5,
) -> None:
    """Export what a table needs into a work package, to be measured on a machine without torch.

    The device of the target is not contacted; its runtime and precision decide what is exported.
    """
    from pathlib import Path

    from pipeline.tables.planning import write_plan
    from pipeline.tables.request import find_space

    found = find_space(space, input_shape, classes)
    manifest = write_plan(
        Path(package), found, _parsed([target])[0], networks=networks, launches=launches, reporter=_reporter()
    )
    failed = sum(item.reason is not None for item in manifest.items)
    typer.echo(f"{package}: {len(manifest.items)} workloads, {failed} of which cannot be exported")
    sys.stderr.write(f"next, on the machine that measures: lathe table measure {package} --target {target}\n")


@table_app.command("measure")
def measure(
    package: Annotated[str, typer.Argument(metavar="PACKAGE", help="Folder that lathe table plan wrote.")],
    target: OneTarget,
    *,
    db: Db = None,
    json_output: Json = False,
) -> None:
    """Measure a work package; torch is not needed. Every outcome is kept at once, the same command goes on.

    Carry the rows back with lathe db export and import, or lathe db merge.
    """
    from pathlib import Path

    from devices.measurement import MeasurementFailure
    from latency_db.package import measure_package
    from latency_db.store import open_store

    (where,) = _parsed([target])
    with open_store(db) as store, _reporter().task(f"measuring {package} on {where}", "workloads") as advance:
        outcomes = measure_package(Path(package), where, store=store, on_progress=advance)
    failed = sum(isinstance(outcome, MeasurementFailure) for outcome in outcomes.values())
    if json_output:
        print_json({"target": str(where), "workloads": len(outcomes), "failed": failed})
    else:
        typer.echo(f"{where}: {len(outcomes)} workloads, {failed} of which cannot run")


def _parsed(targets: list[str]) -> list[Target]:
    from devices.target import Target

    return list(dict.fromkeys(map(Target.parse, targets)))


def _reporter() -> Any:
    from pipeline.progress import ConsoleReporter

    return ConsoleReporter()


@contextmanager
def _bench(db: str | None, launches: int) -> Iterator[Bench]:
    from devices.measurement import MeasuringProtocol
    from latency_db.store import open_store
    from pipeline.tables.request import Bench

    with open_store(db) as store:
        yield Bench(store, MeasuringProtocol(launches=launches), _reporter())


@contextmanager
def _loaded(
    target: str, space: str, shape: str, *, classes: int, launches: int, db: str | None
) -> Iterator[tuple[Bench, Space, Built]]:
    """The table of one target from the database."""
    from pipeline.tables.building import load
    from pipeline.tables.request import find_space

    with _bench(db, launches) as bench:
        found = find_space(space, shape, classes)
        yield bench, found, load(found, _parsed([target])[0], bench)


def _names(space: Space) -> dict[str, str]:
    return {block.identity: str(block) for block in space.distinct_blocks()}


def _summary(model: NetworkModel) -> str:
    table: LatencyTable = model.table
    failed = f", {len(table.failed)} cannot run" if table.failed else ""
    interval = f"within {model.upper_factor - 1:.1%} at {model.coverage:.0%} coverage"
    fitted = f"from {model.fitted_networks} measured"
    return f"{table.target}: {len(table.rows)} blocks{failed}; networks {interval}, {fitted}"


def _verified_text(verified: Verified) -> str:
    """A short table of figures, one line per predictor."""
    rows = {"model": verified.model, **verified.baselines, "noise ceiling": verified.ceiling}
    lines = [
        f"{verified.target}: {len(verified.networks)} networks that the model had not seen",
        f"{'':14} {'in 5 %':>7} {'in 10 %':>8} {'MAPE':>7} {'Spearman':>9} {'covered':>8}",
    ]
    for name, each in rows.items():
        covered = "" if each.covered is None else f"{each.covered:.0%}"
        lines.append(
            f"{name:14} {each.within_5_percent:7.0%} {each.within_10_percent:8.0%} {each.mape:7.2%} "
            f"{each.spearman:9.4f} {covered:>8}"
        )
    if verified.model.coverage is not None:
        lines.append(f"intervals claim {verified.model.coverage:.0%}")
    if verified.invalid:
        lines.append(f"{verified.invalid} left out: no valid measurement")
    if verified.infeasible:
        lines.append(f"{verified.infeasible} drawn and not measured: a block cannot run there")
    return "\n".join(lines)
