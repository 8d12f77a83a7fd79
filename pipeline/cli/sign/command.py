"""What ``lathe sign`` does; imported only when it runs."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.bundle import sign_bundle
from pipeline.cli.output import print_json


def sign_folder(bundle: str, key: str, *, as_json: bool) -> None:
    """``lathe sign``."""
    signature = sign_bundle(Path(bundle), Path(key))
    if as_json:
        print_json({"bundle": bundle, "public_key": signature.public_key})
    else:
        sys.stdout.write(f"{bundle}: signed with the key whose public part is {signature.public_key}\n")
