"""How to install optional packages: from the checkout, since no package index has this project."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

__all__ = ["how_to_install"]

_CHECKOUT = Path(__file__).resolve().parent.parent


def how_to_install(extra: str) -> str:
    """The command that installs the packages of an extra of ``pyproject.toml``.

    It can be pasted into a shell whatever its current folder is.
    """
    python = Path(sys.executable)
    if not (_CHECKOUT / "pyproject.toml").exists():
        return f"install Lathe again from its source, with the extra [{extra}]"
    own = python.is_relative_to(_CHECKOUT) and (python.parent / "pip").exists()
    pip = str(python.parent.relative_to(_CHECKOUT) / "pip") if own else f"{shlex.quote(str(python))} -m pip"
    return f'cd {shlex.quote(str(_CHECKOUT))} && {pip} install -c constraints.txt -e ".[{extra}]"'
