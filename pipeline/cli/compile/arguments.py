"""Arguments of ``lathe compile``; what it does is in ``command``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from pipeline.cli.options import Database, Json, with_options

MODEL, CHOICE = "Model and data", "Choice"
TaskKind = Literal["single-label", "multi-label", "regression", "embedding"]
"""As ``pipeline.tasks`` has it, which imports numpy."""


@dataclass(frozen=True)
class ModelOptions:
    """What the model and the data need to be read."""

    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Inputs to calibrate and compare with: a folder of images, .npz, .npy, .csv, CIFAR, MNIST.",
            rich_help_panel=MODEL,
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            "--mean",
            metavar="A,B,C",
            help="Of each channel, taken from images in 0 to 1. [default: 0]",
            rich_help_panel=MODEL,
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            "--std",
            metavar="A,B,C",
            help="Of each channel, by which they are divided then. [default: 1]",
            rich_help_panel=MODEL,
        ),
    ] = None
    task: Annotated[
        TaskKind,
        typer.Option(
            "--task",
            help="What labels and the first output mean; its metric is the accuracy.",
            rich_help_panel=MODEL,
        ),
    ] = "single-label"
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input-shape",
            metavar="CxHxW",
            help="Of one input, where the model leaves it open.",
            rich_help_panel=MODEL,
        ),
    ] = None
    arguments: Annotated[
        list[str] | None,
        typer.Option(
            "--argument",
            metavar="NAME=VALUE",
            help="Of a factory; may be repeated. VALUE is written as in TOML.",
            rich_help_panel=MODEL,
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", metavar="FILE", help="State dict of a factory's network.", rich_help_panel=MODEL
        ),
    ] = None
    weights_key: Annotated[
        str | None,
        typer.Option(
            "--weights-key",
            metavar="KEY",
            help="Which of several state dicts in that file, or which prefix of names.",
            rich_help_panel=MODEL,
        ),
    ] = None


@dataclass(frozen=True)
class ChoiceOptions:
    """What the choice has to keep."""

    objective: Annotated[
        Literal["latency", "size"],
        typer.Option("--objective", help="What is made small.", rich_help_panel=CHOICE),
    ] = "latency"
    max_drop: Annotated[
        float,
        typer.Option(
            "--max-drop",
            metavar="POINTS",
            min=0,
            max=100,
            help="Points of accuracy, or of the task's metric, that may be lost.",
            rich_help_panel=CHOICE,
        ),
    ] = 0.5
    fine_tuning_epochs: Annotated[
        int,
        typer.Option(
            "--fine-tuning-epochs",
            metavar="N",
            min=0,
            max=1000,
            help="At most, of a network of torch whose int8 loses more; 0 for none. Needs labelled images.",
            rich_help_panel=CHOICE,
        ),
    ] = 5
    budget_ms: Annotated[
        float | None,
        typer.Option(
            "--budget-ms",
            metavar="MS",
            min=0.000001,
            max=1e9,
            help="Latency that must be kept; else the exit code is 11.",
            rich_help_panel=CHOICE,
        ),
    ] = None
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Try lossy variants also where nobody can tell what they lose, or more than --max-drop.",
            rich_help_panel=CHOICE,
        ),
    ] = False


@with_options
def compile_(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="An .onnx, .tflite or .pt2 file, or a factory 'package.module:function'."
        ),
    ],
    *,
    targets: Annotated[
        list[str],
        typer.Option(
            "--target",
            metavar="TARGET",
            help="Where: DEVICE, DEVICE/RUNTIME or DEVICE/RUNTIME:PRECISION@THREADS; what you leave out is "
            "tried. May be repeated.",
        ),
    ],
    given: ModelOptions,
    rules: ChoiceOptions,
    ops: Annotated[
        bool,
        typer.Option("--ops", help="Also time each operation, before and after."),
    ] = False,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="BUNDLE", help="Write a bundle of what was chosen to this folder."),
    ] = None,
    work: Annotated[
        str, typer.Option("--work", metavar="DIR", help="Folder that keeps everything that was made.")
    ] = "lathe-work",
    db: Database = None,
    json_output: Json = False,
) -> None:
    """Compile a finished model for a device, by measurement.

    Every variant that fits the device is made: runtimes, graph clean-up, fp16, and int8 of every kind. Each
    is compared with the model and measured on the device, all under the same conditions; those that are
    surely slower are stopped early. You get a table, the front of accuracy, latency and size, and the choice
    with its reason. To continue a call that was stopped, give it again; a finished one answers at once.
    """
    from pipeline.cli.compile.command import compile_for

    compile_for(model, targets, given, rules, ops=ops, out=out, work=work, db=db, as_json=json_output)
