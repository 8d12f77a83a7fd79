"""``lathe table predict``: estimates of networks from a table, of a file or of the database."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import Json
from pipeline.cli.output import print_json
from pipeline.cli.table.options import (
    BenchOptions,
    SpaceOptions,
    TableName,
    named_tables,
    with_options,
)
from pipeline.cli.table.text import predictions_text


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
        int | None, typer.Option("--count", metavar="N", min=1, help="Also predict so many random networks.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Seed of the networks that are drawn.")
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
    from pipeline.tables.exchange import table_file
    from pipeline.tables.prediction import drawn, landmarks, predictions_json, written
    from pipeline.tables.prediction import predict as predict_networks
    from pipeline.tables.request import space_of

    [content] = named_tables([table], space_options, bench_options)
    model = content.model
    if wanted is not None:
        from devices.measurement import MeasuringProtocol
        from devices.measuring import adapted, probe
        from devices.target import Target
        from latency_db.tables import TableKey

        target = Target.parse(wanted)
        protocol = adapted(MeasuringProtocol(launches=bench_options.launches), target)
        model.table.require_key(TableKey.of(*probe(target), protocol))
    space = space_options.find() if table_file(table) is None else space_of(content.space)
    given = [each for text in architecture or [] for each in written(space, text)]
    networks = {f"given {number}": network for number, network in enumerate(given, 1)}
    networks |= drawn(space, count, seed) if count else {}
    predictions = predict_networks(space, model, networks or landmarks(space, model))
    if json_output:
        print_json(predictions_json(model, predictions))
    else:
        typer.echo(predictions_text(model, predictions))
