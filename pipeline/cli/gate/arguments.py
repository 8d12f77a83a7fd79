"""Arguments of ``lathe gate``; what it does is in ``command``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from pipeline.cli.options import Json, with_options

LIMITS = "Limits"
DOCUMENTS = "Output"


@dataclass(frozen=True)
class Asked:
    """The limits of the gate, as they are written."""

    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="BUNDLE",
            help="Older bundle whose latency is compared, in the same launches.",
            rich_help_panel=LIMITS,
        ),
    ] = None
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            "--max-latency-ms", metavar="MS", help="Latency of each artifact.", rich_help_panel=LIMITS
        ),
    ] = None
    max_regression: Annotated[
        str | None,
        typer.Option(
            "--max-regression",
            metavar="SHARE",
            help="By how much an artifact may be slower than the older one, such as 3% or 0.03. "
            "[default: 3% with --against]",
            rich_help_panel=LIMITS,
        ),
    ] = None
    min_accuracy: Annotated[
        str | None,
        typer.Option(
            "--min-accuracy",
            metavar="SHARE",
            help="Accuracy on the bundle's test images, such as 91.5% or 0.915.",
            rich_help_panel=LIMITS,
        ),
    ] = None
    max_size: Annotated[
        str | None,
        typer.Option(
            "--max-size",
            metavar="SIZE",
            help="Size of each artifact's file, such as 300kB, 1.5MB or 1MiB.",
            rich_help_panel=LIMITS,
        ),
    ] = None


@dataclass(frozen=True)
class Documents:
    """Files that say what was found."""

    junit: Annotated[
        str | None,
        typer.Option(
            "--junit", metavar="FILE", help="Write JUnit XML, a case per check.", rich_help_panel=DOCUMENTS
        ),
    ] = None
    markdown: Annotated[
        str | None,
        typer.Option(
            "--markdown", metavar="FILE", help="Write a Markdown summary.", rich_help_panel=DOCUMENTS
        ),
    ] = None


@with_options
def gate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")],
    asked: Asked,
    documents: Documents,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", metavar="TARGET", help="One of the bundle's targets; may be repeated. [default: all]"
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Hold a bundle to limits, as a step of a build.

    Every file must be unchanged; then each artifact is held to the limits. A latency fails only if its whole
    interval is beyond the limit; while the interval holds the limit, more launches are made, up to 72. If it
    still does then, the check is undecided, which does not close the gate. The exit code is 0 if the gate is
    open, 13 if a limit is not kept, 12 if something could not be measured, and 11 if the bundle was changed.
    """
    from pipeline.cli.gate.command import hold_to_limits

    hold_to_limits(bundle, asked, documents, target or (), as_json=json_output)
