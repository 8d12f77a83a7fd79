"""``lathe table transfer``: a new target's latencies, from few measurements and other targets' tables."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import Json
from pipeline.cli.output import print_json
from pipeline.cli.table.options import BenchOptions, SpaceOptions, block_texts, parsed, with_options
from pipeline.cli.table.text import transferred_text, verified_text

Sources = Annotated[
    list[str],
    typer.Option(
        "--from", metavar="T", help="Target with a table, or a file of lathe table export; may be repeated."
    ),
]
NewTarget = Annotated[
    str, typer.Option("--to", metavar="T", help="Target to estimate, e.g. host/litert:fp32@1.")
]


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
            "--check", metavar="N", min=3, help="Then measure so many other networks twice, and compare."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Seed of the networks that are compared.")
    ] = 1,
    bench_options: BenchOptions,
    json_output: Json = False,
) -> None:
    """Estimate a new target from the tables of others.

    A few measurements on the new target are enough. Half of the samples are random networks, from which
    the interval of networks comes; the others are chosen to tell most. What is in the database already
    counts, and every outcome is kept at once: the same command continues where it stopped. Estimates
    are never stored as measurements.
    """
    from pathlib import Path

    from pipeline.tables.transfer.check import check as check_estimates
    from pipeline.tables.transfer.estimates import check_place, transferred_json, write_estimates
    from pipeline.tables.transfer.estimating import transfer as transfer_tables
    from pipeline.tables.transfer.sources import source_models

    if save is not None:
        check_place(Path(save))
    (where,) = parsed([target])
    space = space_options.find()
    names = block_texts(space)
    with bench_options.opened() as bench:
        models = source_models(space, sources, where, bench)
        found = transfer_tables(space, where, models, bench, samples=samples)
        if save is not None:
            write_estimates(Path(save), found.model, space.description, names)
        checked = (
            check_estimates(space, found, models, bench, count=check, seed=seed)
            if check is not None
            else None
        )
    if json_output:
        document = transferred_json(found, names)
        print_json(document if checked is None else {**document, "check": checked.to_json()})
        return
    typer.echo(transferred_text(found, names))
    if checked is not None:
        typer.echo(verified_text(checked))
