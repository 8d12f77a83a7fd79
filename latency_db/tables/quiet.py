"""What keeps a device busy, and waiting until it is quiet: bounded, and never in silence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from devices.errors import MeasurementError, TargetError

if TYPE_CHECKING:
    from devices.target import Target
    from latency_db.tables.outcomes import Measurer

PATIENCE_S = 60.0
"""How long to wait for a quiet machine before what was disturbed is measured again."""
LOOK_EVERY_S = 5.0
TELL_EVERY_S = 15.0


def what_disturbs(measurer: Measurer, target: Target) -> str:
    """What else the device does, if it would disturb a launch; empty if not, or where it does not tell."""
    try:
        load = measurer.busy_with(target.device)
    except (MeasurementError, TargetError):
        return ""
    return str(load) if load.disturbs else ""


def wait_for_quiet(
    measurer: Measurer,
    target: Target,
    tell: Callable[[str], None],
    deadline_s: float | None = None,
    patience_s: float | None = None,
) -> bool:
    """Wait until nothing else disturbs the device; whether that came.

    Args:
        measurer: tells what the device does.
        target: on the device.
        tell: called with a line at once, and every ``TELL_EVERY_S``, while this waits.
        deadline_s: by ``time.monotonic``, not to wait beyond.
        patience_s: the longest wait, ``PATIENCE_S`` unless given.
    """
    begun, patience_s = time.monotonic(), PATIENCE_S if patience_s is None else patience_s
    until = begun + patience_s if deadline_s is None else min(begun + patience_s, deadline_s)
    told = -TELL_EVERY_S
    while busy := what_disturbs(measurer, target):
        now = time.monotonic()
        if now >= until:
            tell(f"{target.device} stays busy: {busy}; going on all the same")
            return False
        if now - begun >= told + TELL_EVERY_S:
            told = now - begun
            tell(f"waiting up to {until - now:.0f} s for {target.device} to be quiet: {busy}")
        time.sleep(min(LOOK_EVERY_S, max(until - now, 0.0)))
    return True
