"""Where the checkout is, and the optional data sets."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("LATHE_SHARED_DATA", ROOT.parent / "shared" / "data"))
