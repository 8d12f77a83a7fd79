"""Arguments of ``lathe profile`` and ``lathe compare``; what they do is in ``command``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import Database, Json, seconds_of

MEASURING = "Measuring"
INPUTS = "Inputs"

Targets = Annotated[
    list[str],
    typer.Option(
        "--target", metavar="TARGET", help="Where: DEVICE/RUNTIME:PRECISION@THREADS; may be repeated."
    ),
]
Launches = typer.Option(
    "--launches",
    metavar="N",
    min=1,
    max=1000,
    help="Fresh processes to measure in; up to three times as many are started while they disagree.",
    rich_help_panel=MEASURING,
)
Full = Annotated[
    bool,
    typer.Option(
        "--require-full-delegation",
        help="Count a model as failed if any operation runs elsewhere than on the accelerator asked for.",
        rich_help_panel=MEASURING,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=1,
        max=1_000_000,
        help="Time a model may take in one launch, including building an engine on the device.",
        rich_help_panel=MEASURING,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Load files that are programs (.pt2, .engine, .plan), now and later while their content is the "
        "same.",
        rich_help_panel=MEASURING,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Count a measurement as failed unless its verdict is valid: for build steps.",
        rich_help_panel=MEASURING,
    ),
]
Patience = Annotated[
    str | None,
    typer.Option(
        "--wait-for-quiet",
        metavar="TIME",
        help="Begin when nothing else keeps the device busy, or after this time, such as 10m.",
        rich_help_panel=MEASURING,
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=SIZES",
        help="Sizes of an input, as in x=1,3,48,320; may be repeated. Several shapes of one input are "
        "measured one by one.",
        rich_help_panel=INPUTS,
    ),
]
OneShape = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=SIZES",
        help="Sizes of an input, as in x=1,3,48,320; may be repeated for other inputs.",
        rich_help_panel=INPUTS,
    ),
]
Fills = Annotated[
    list[str] | None,
    typer.Option(
        "--fill",
        metavar="NAME=VALUES",
        help="Values of an input: zeros, ones, random, range:LOW,HIGH or value:NUMBER; may be repeated.",
        rich_help_panel=INPUTS,
    ),
]
Files = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=FILE",
        help="Values of an input from a file: .npy, .npz, .png, .jpg or .wav; may be repeated.",
        rich_help_panel=INPUTS,
    ),
]
Signature = Annotated[
    str,
    typer.Option(
        "--signature",
        metavar="NAME",
        help="Which signature of a .tflite file; by default its first graph.",
        rich_help_panel=INPUTS,
    ),
]
Save = Annotated[
    str | None,
    typer.Option(
        "--save", metavar="FILE", help="Write everything, raw samples included, to a new result file."
    ),
]


def profile(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Files: .onnx, .ort, .tflite, .pt2, .pte, .engine."),
    ],
    *,
    targets: Targets,
    shapes: Shapes = None,
    fills: Fills = None,
    inputs: Files = None,
    signature: Signature = "",
    ops: Annotated[
        bool,
        typer.Option(
            "--ops", help="Also time each operation, in runs of their own.", rich_help_panel=MEASURING
        ),
    ] = False,
    sustained: Annotated[
        float | None,
        typer.Option(
            "--sustained",
            metavar="MINUTES",
            help="Also run each model without pause for so long, to see what heat does.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            "--view",
            metavar="FILE",
            help="Also time each operation, and write a page: latencies by size, the graph with times.",
        ),
    ] = None,
    launches: Annotated[int | None, Launches] = None,
    spread: Annotated[
        str | None,
        typer.Option(
            "--spread",
            metavar="TIME",
            help="Spread the launches over a time, such as 10m, to see more of how the device changes; 15 "
            "launches unless --launches says otherwise.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    require_full_delegation: Full = False,
    wait_for_quiet: Patience = None,
    strict: Strict = False,
    timeout_s: Timeout = 120,
    trust: Trust = False,
    db: Database = None,
    save: Save = None,
    json_output: Json = False,
) -> None:
    """Measure the latency of model files.

    You get each latency with its interval and verdict, the phases of a start, memory, and where
    operations ran. Each model is measured on every target whose runtime loads it. If a model or a target
    cannot be used, the others are measured, shown and saved all the same; the exit code tells.

    A latency holds for the shapes and values of the inputs, which are told beside it. Sizes that a model
    leaves open are taken as 1 unless you give them.

    The first interval holds for another batch of launches here and now, the second for the same measurement
    at another time on this device. How far batches differ is learned from the device's measurements in the
    latency database, which gets this one too.
    """
    from pipeline.cli.profile.command import Inputs, Wanted, profile_models

    profile_models(
        models,
        targets,
        Wanted(
            launches,
            ops or view is not None,
            sustained,
            require_full_delegation,
            timeout_s,
            trust,
            None if spread is None else seconds_of(spread),
            None if wait_for_quiet is None else seconds_of(wait_for_quiet),
        ),
        Inputs(tuple(shapes or ()), tuple(fills or ()), tuple(inputs or ()), signature),
        strict=strict,
        db=db,
        save=save,
        view=view,
        as_json=json_output,
    )


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A model file.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The file that it is compared with.")],
    *,
    target: Annotated[
        list[str],
        typer.Option(
            "--target", metavar="TARGET", help="Where: DEVICE/RUNTIME:PRECISION@THREADS; one, for both."
        ),
    ],
    shapes: OneShape = None,
    fills: Fills = None,
    inputs: Files = None,
    signature: Signature = "",
    launches: Annotated[int | None, Launches] = None,
    wait_for_quiet: Patience = None,
    strict: Strict = False,
    timeout_s: Timeout = 120,
    trust: Trust = False,
    db: Database = None,
    save: Save = None,
    json_output: Json = False,
) -> None:
    """Say which of two models is faster.

    Both are measured in the same launches, so the ratio of their latencies has an interval of its own.
    """
    from pipeline.cli.profile.command import Inputs, compare_models

    compare_models(
        first,
        second,
        target,
        Inputs(tuple(shapes or ()), tuple(fills or ()), tuple(inputs or ()), signature),
        launches=launches,
        patience_s=None if wait_for_quiet is None else seconds_of(wait_for_quiet),
        strict=strict,
        timeout_s=timeout_s,
        trust=trust,
        db=db,
        save=save,
        as_json=json_output,
    )
