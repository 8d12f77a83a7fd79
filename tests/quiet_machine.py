"""Measurements as on a machine that does nothing else, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Callable

import devices.measuring.batch as batch
from devices.measurement import Measurement, Verdict


def be_quiet(patch: Callable[[object, str, object], None] = setattr) -> None:
    """Take every launch for sound and every measurement for valid; the times are those that were taken.

    So the tests run side by side, and no launch is repeated.
    """
    patch(batch, "mark", lambda launches, protocol, *, cores: tuple(launches))
    patch(batch, "settled", lambda launches, protocol: True)
    patch(batch, "judge", lambda launches, protocol: (Verdict.VALID, ()))
    patch(Measurement, "sharp", property(lambda measurement: measurement.verdict is not Verdict.INVALID))
