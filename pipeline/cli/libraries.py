"""Libraries that do what nobody asked for: talk on the terminal, or spin while they wait."""

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


def let_waiting_threads_sleep() -> None:
    """Threads of torch that wait for others sleep; by default they spin, and take what other work needs.

    The library of the threads reads this once, when torch is imported: call it before. On two cores beside
    other work a step of training then takes a small part of the time. Measurements do not see it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
