"""Arguments of ``lathe callers``; what it does is in ``command``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import Json


def callers(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")],
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to write; made if needed.")],
    c_header: Annotated[
        bool, typer.Option("--c-header", help="Also write the model's bytes as a C and C++ header.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Write example programs that run a bundle's model.

    C++ with ONNX Runtime or LiteRT, and Kotlin for Android with LiteRT: one that runs any model, and one that
    classifies images. What the model takes and answers is in a file of constants, made from the manifest.
    """
    from pipeline.cli.callers.command import write_examples

    write_examples(bundle, folder, c_header=c_header, as_json=json_output)
