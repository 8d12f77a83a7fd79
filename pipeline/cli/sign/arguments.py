"""Arguments of ``lathe sign``; what it does is in ``command``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import Json


def sign(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")],
    key: Annotated[str, typer.Option("--key", metavar="FILE", help="Private Ed25519 key, PEM or OpenSSH.")],
    json_output: Json = False,
) -> None:
    """Sign a bundle, so that others can check that it is yours.

    Every file must be unchanged. The signature is a file of its own in the bundle, signature.json; nothing
    else changes. The passphrase of a key is taken from the environment variable LATHE_KEY_PASSPHRASE.
    """
    from pipeline.cli.sign.command import sign_folder

    sign_folder(bundle, key, as_json=json_output)
