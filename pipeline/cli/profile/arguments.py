"""Arguments of ``lathe profile`` and ``lathe compare``; what they do is in ``command``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import Json

MEASURING = "Measuring"

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
    launches: Annotated[int | None, Launches] = None,
    require_full_delegation: Full = False,
    timeout_s: Timeout = 120,
    trust: Trust = False,
    save: Save = None,
    json_output: Json = False,
) -> None:
    """Measure the latency of model files.

    You get each latency with its interval and verdict, the phases of a start, memory, and where
    operations ran. Each model is measured on every target whose runtime loads it. If a model or a target
    cannot be used, the others are measured, shown and saved all the same; the exit code tells.
    """
    from pipeline.cli.profile.command import Wanted, profile_models

    profile_models(
        models,
        targets,
        Wanted(launches, ops, sustained, require_full_delegation, timeout_s, trust),
        save=save,
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
    launches: Annotated[int | None, Launches] = None,
    timeout_s: Timeout = 120,
    trust: Trust = False,
    save: Save = None,
    json_output: Json = False,
) -> None:
    """Say which of two models is faster.

    Both are measured in the same launches, so the ratio of their latencies has an interval of its own.
    """
    from pipeline.cli.profile.command import compare_models

    compare_models(
        first,
        second,
        target,
        launches=launches,
        timeout_s=timeout_s,
        trust=trust,
        save=save,
        as_json=json_output,
    )
