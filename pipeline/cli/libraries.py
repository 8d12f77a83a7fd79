"""Libraries that talk on the terminal unasked."""

from __future__ import annotations

import os
import sys
import warnings


def quiet_libraries() -> None:
    """Keep the chatter of imported libraries off the terminal unless the user asks for it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_minloglevel", "3")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
