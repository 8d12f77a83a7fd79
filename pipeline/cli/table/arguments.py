"""Arguments of ``lathe table``; what its commands do is in ``command``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from pipeline.cli.help import Commands
from pipeline.cli.options import Database, Json, with_options

table_app = Commands("Build latency tables of a search space, and predict with them.")

SpaceName = Annotated[
    str,
    typer.Option("--space", metavar="S", help="The space: mobile, akd, or a recipe file that has a [space]."),
]
Input = Annotated[
    str, typer.Option("--input", metavar="HxW", help="Size of an input image, e.g. 32x32 or 1x28x28.")
]
Classes = Annotated[
    int, typer.Option("--classes", min=1, max=1_000_000, metavar="N", help="Number of classes.")
]
Targets = Annotated[
    list[str], typer.Option("--target", metavar="T", help="Target, e.g. host/litert:fp32@1; may be repeated.")
]
OneTarget = Annotated[str, typer.Option("--target", metavar="T", help="Target, e.g. host/litert:fp32@1.")]
TableName = Annotated[
    str,
    typer.Argument(
        metavar="TABLE", help="A file of lathe table export, or a target with a table in the database."
    ),
]
Networks = Annotated[
    int,
    typer.Option("--networks", metavar="N", min=6, max=1000, help="Whole networks to measure for the model."),
]
Launches = Annotated[
    int,
    typer.Option(
        "--launches", metavar="N", min=3, max=1000, help="Fresh processes in which each workload is measured."
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="HxW", help="Size of an input image, e.g. 32x32; may be repeated."),
]
Sources = Annotated[
    list[str],
    typer.Option(
        "--from", metavar="T", help="Target with a table, or a file of lathe table export; may be repeated."
    ),
]
NewTarget = Annotated[
    str, typer.Option("--to", metavar="T", help="Target to estimate, e.g. host/litert:fp32@1.")
]


@dataclass(frozen=True)
class SpaceOptions:
    """Which space."""

    space: SpaceName = "mobile"
    input_shape: Input = "32x32"
    classes: Classes = 10

    @property
    def given(self) -> bool:
        """Whether one of them is not its default."""
        return self != SpaceOptions()


@dataclass(frozen=True)
class BenchOptions:
    """How to measure, and where outcomes are kept."""

    launches: Launches = 5
    db: Database = None


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
    networks: Networks = 24,
    budget_time: Annotated[
        float | None,
        typer.Option(
            "--budget-time",
            metavar="MINUTES",
            min=0,
            max=1_000_000,
            help="Begin no measurement after so many minutes.",
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
    from pipeline.cli.table.command import build_tables

    inputs = input_shape or ["32x32"]
    spaces = [SpaceOptions(space, each, classes) for each in inputs]
    build_tables(spaces, target, networks, budget_time, bench_options, as_json=json_output)


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
    from pipeline.cli.table.command import show_table

    if (file is None) == (target is None):
        raise typer.BadParameter("give a file, or --target")
    show_table(file or target or "", space_options, bench_options, as_json=json_output)


@table_app.add("verify", "lathe table verify --target host/onnxruntime:fp32@1 --count 40")
@with_options
def verify(
    target: OneTarget,
    *,
    space_options: SpaceOptions,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=3, max=1000, help="Networks to measure, twice each.")
    ] = 20,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="N", min=0, max=2**31 - 1, help="Seed of the networks that are drawn."
        ),
    ] = 1,
    bench_options: BenchOptions,
    json_output: Json = False,
) -> None:
    """Compare a table's estimates with new measurements.

    Random networks that the model has not seen are measured. Beside the model stand what measuring the
    same networks twice can reach (the noise ceiling), and simpler predictions: the plain sum of the
    blocks, and lines fitted to that sum and to multiply-accumulates.
    """
    from pipeline.cli.table.command import verify_table

    verify_table(target, space_options, bench_options, count=count, seed=seed, as_json=json_output)


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
    from pipeline.cli.table.command import export_table

    export_table(file, target, space_options, bench_options)


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
    from pipeline.cli.table.command import compare_tables

    compare_tables(first, second, space_options, bench_options, as_json=json_output)


@table_app.add("plan", "lathe table plan package --target pi5/litert:fp32@4")
@with_options
def plan(
    package: Annotated[str, typer.Argument(metavar="PACKAGE", help="New folder to write.")],
    target: OneTarget,
    *,
    space_options: SpaceOptions,
    networks: Networks = 24,
    launches: Launches = 5,
) -> None:
    """Export a table's blocks, to be measured elsewhere.

    The result is a work package, which lathe table measure measures on a machine without torch. The
    device of the target is not contacted; its runtime and precision decide what is exported.
    """
    from pipeline.cli.table.command import plan_package

    plan_package(package, target, space_options, networks=networks, launches=launches)


@table_app.add("measure", "lathe table measure package --target pi5/litert:fp32@4")
def measure(
    package: Annotated[str, typer.Argument(metavar="PACKAGE", help="Folder that lathe table plan wrote.")],
    target: OneTarget,
    *,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Load its files although they are programs (.pt2, .engine, .plan)."),
    ] = False,
    db: Database = None,
    json_output: Json = False,
) -> None:
    """Measure the work package of lathe table plan.

    torch is not needed. Every outcome is kept at once, so the same command continues where it was stopped.
    Take the rows back with lathe db export and import, or lathe db merge.
    """
    from pipeline.cli.table.command import measure_workloads

    measure_workloads(package, target, db, trust=trust, as_json=json_output)


@table_app.add(
    "predict",
    "lathe table predict pi5.json --count 10",
    "lathe table predict host/onnxruntime:fp32@1 --architecture networks.json",
)
@with_options
def predict(
    table: TableName,
    *,
    architecture: Annotated[
        list[str] | None,
        typer.Option(
            "--architecture",
            metavar="NETWORK",
            help="A network as it is printed, as a JSON object, or a file of such; may be repeated.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", metavar="N", min=1, max=1_000_000, help="Also predict so many random networks."
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="N", min=0, max=2**31 - 1, help="Seed of the networks that are drawn."
        ),
    ] = 1,
    wanted: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="T", help="Refuse unless the table holds for this target as it is now."
        ),
    ] = None,
    space_options: SpaceOptions,
    bench_options: BenchOptions,
    json_output: Json = False,
) -> None:
    """Estimate latencies of networks, with intervals.

    Nothing is measured, and nothing is stored. Without --architecture and --count you get the reference
    network, and those that the model takes for the fastest and the slowest. A file says itself which
    space it is of, and needs no database, device or torch; --space, --input and --classes are for a
    target. A table holds for one runtime, kind of device and protocol: with --for, what differs is named,
    and nothing is estimated.
    """
    from pipeline.cli.table.command import Asked, predict_networks

    asked = Asked(architecture or [], count, seed, wanted)
    predict_networks(table, asked, space_options, bench_options, as_json=json_output)


@table_app.add(
    "transfer", "lathe table transfer --from host/onnxruntime:fp32@1 --to pi5/litert:fp32@4 --samples 20"
)
@with_options
def transfer(
    sources: Sources,
    target: NewTarget,
    *,
    samples: Annotated[
        int,
        typer.Option("--samples", metavar="N", min=10, max=200, help="Blocks and networks to measure on it."),
    ] = 20,
    space_options: SpaceOptions,
    save: Annotated[
        str | None, typer.Option("--save", metavar="FILE", help="File of estimates to write.")
    ] = None,
    check: Annotated[
        int | None,
        typer.Option(
            "--check",
            metavar="N",
            min=3,
            max=1000,
            help="Then measure so many other networks twice, and compare.",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="N", min=0, max=2**31 - 1, help="Seed of the networks that are compared."
        ),
    ] = 1,
    bench_options: BenchOptions,
    json_output: Json = False,
) -> None:
    """Estimate a new target from the tables of others.

    A few measurements on the new target are enough. Up to ten of the samples, and a quarter of those
    beyond twenty, are random networks, from which the interval of networks comes; the others are chosen to
    tell most. What is in the database already
    counts, and every outcome is kept at once: the same command continues where it stopped. Estimates
    are never stored as measurements.
    """
    from pipeline.cli.table.command import Wanted, transfer_tables

    wanted = Wanted(samples, save, check, seed)
    transfer_tables(sources, target, wanted, space_options, bench_options, as_json=json_output)
