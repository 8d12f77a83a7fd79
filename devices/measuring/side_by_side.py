"""Work on targets of several devices at once: a thread for each device, and this machine alone afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from devices.errors import LatheError
from devices.inventory.devices import is_this_machine
from devices.target import Target

R = TypeVar("R")

GoingOn = Callable[[], None]
"""To be called now and then by work: it raises where the rest of the work is given up."""


class _GivenUp(BaseException):
    """Whoever asked for the work waits for it no more: no failure of the work."""


def side_by_side(
    work: Mapping[Target, Callable[[GoingOn], R]], on_failure: Callable[[str], None] = lambda line: None
) -> dict[Target, R]:
    """Do something on each target; targets of one device come one after the other.

    This machine comes last, alone: that it serves the other devices would disturb what is measured on it.

    Args:
        work: by target. It is called in a thread of its device, or in this one where there is one device.
        on_failure: called with a line when a device fails and others go on.

    Returns:
        What the work gave, in the order of ``work``.

    Raises:
        LatheError: of the first device that failed; all others were finished before.
    """
    by_device: dict[str, list[Target]] = {}
    for target in work:
        by_device.setdefault(target.device, []).append(target)
    here = [each for device in list(by_device) if is_this_machine(device) for each in by_device.pop(device)]
    found: dict[Target, R] = {}
    failures: dict[str, LatheError] = {}
    given_up = threading.Event()

    def going_on() -> None:
        if given_up.is_set():
            raise _GivenUp

    def serve(targets: list[Target], others: bool) -> None:
        try:
            for target in targets:
                found[target] = work[target](going_on)
        except LatheError as error:
            failures[target.device] = error
            if others:
                on_failure(f"{target}: {error.what}; the other devices go on")

    if len(by_device) > 1:
        with ThreadPoolExecutor(len(by_device), thread_name_prefix="device") as pool:
            running = [pool.submit(serve, targets, True) for targets in by_device.values()]
            try:
                for future in running:
                    future.result()
            except BaseException:
                given_up.set()
                raise
    else:
        for targets in by_device.values():
            serve(targets, bool(here))
    serve(here, False)
    for device in (target.device for target in work):
        if device in failures:
            raise failures[device]
    return {target: found[target] for target in work}
