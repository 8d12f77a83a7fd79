"""One measurement at a time per device, between all processes of a user."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_state_path

from devices.errors import TargetError

DEFAULT_WAIT_S = 900.0
"""How long to wait for a device; a batch of blocks holds it for seconds."""

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def device_lock(device: str, *, wait_s: float = DEFAULT_WAIT_S) -> Iterator[None]:
    """Hold a device alone. While another process has it, a warning says which, and this waits.

    The lock is a file in the folder that the environment variable LATHE_STATE_DIR names, by default the
    user's state folder; the system frees it when the process that holds it ends, however it ends.

    Args:
        device: name of a device, as in targets.
        wait_s: the longest wait in seconds.

    Raises:
        TargetError: the device is still in use after ``wait_s``, or the folder cannot be written.
    """
    folder = _state_folder() / "locks"
    holder = folder / f"{device}.holder"
    lock = FileLock(folder / f"{device}.lock", thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, device, holder, wait_s)
    except OSError as error:
        if isinstance(error, Timeout):
            raise TargetError(
                f"device '{device}' was in use for more than {wait_s:g} s",
                why=_describe(holder),
                fix="wait until that process has ended, or end it",
            ) from error
        raise TargetError(
            f"the lock of device '{device}' cannot be written",
            why=str(error),
            fix="set LATHE_STATE_DIR to a folder that can be written",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, device: str, holder: Path, wait_s: float) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("waiting for device '%s': %s", device, _describe(holder))
        lock.acquire(timeout=wait_s, poll_interval=0.1)
    partial = holder.with_suffix(f".{os.getpid()}")
    partial.write_text(
        json.dumps({"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")})
    )
    partial.replace(holder)


def _describe(holder: Path) -> str:
    try:
        entry = json.loads(holder.read_text())
        return f"process {entry['pid']} holds it since {entry['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process holds it"


def _state_folder() -> Path:
    chosen = os.environ.get("LATHE_STATE_DIR")
    return Path(chosen) if chosen else user_state_path("lathe", appauthor=False)
