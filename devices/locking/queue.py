"""The files by which everybody who wants a device queues for it, kept on the device itself.

In one folder that all users of the device can write to (``/tmp``; ``/data/local/tmp`` on Android; or what the
environment variable LATHE_STATE_DIR names there) are

- ``lathe-device.lock``: whoever holds flock(2) on it has the device. Any program may take part: ``flock
  /tmp/lathe-device.lock make`` keeps measurements away meanwhile.
- ``lathe-device.queue/``: a ticket for each process that has or wants the device, named by when it came. Its
  first line says who, its second since when they have it. A ticket counts only while somebody holds flock(2)
  on it.

So the kernel itself takes away what belongs to a process that ended, however it ended. On this machine the
locks are held by this process; elsewhere by ``SCRIPT``, which runs there as long as the device is wanted.

Sources: flock(1) of util-linux, busybox and toybox, of which the last takes a descriptor and no file;
proc_sys_fs(5) on ``protected_regular``, for which others' files in sticky folders are never opened to create.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

LOCK = "lathe-device.lock"
QUEUE = "lathe-device.queue"

SCRIPT = r"""
LC_ALL=C; export LC_ALL
umask 022
flock -u 0 </dev/null >/dev/null 2>&1 || { echo no-flock; exit 0; }
folder=/tmp
[ -d /data/local/tmp ] && folder=/data/local/tmp
folder=${LATHE_STATE_DIR:-$folder}
lock=$folder/lathe-device.lock queue=$folder/lathe-device.queue tab=$(printf '\t')

# Sets count to the living tickets before $1, last to the last of them, and first to what the first says.
look() {
  count=0 last= first=
  for ticket in "$queue"/[0-9]*; do
    [ "$ticket" = "$1" ] && return
    [ -f "$ticket" ] && [ -r "$ticket" ] || continue
    if flock -s -n 0 2>/dev/null <"$ticket"; then rm -f "$ticket" 2>/dev/null; continue; fi
    name= since=
    { read -r name; read -r since; } 2>/dev/null <"$ticket"
    count=$((count + 1)) last=$ticket
    [ "$count" = 1 ] && first=$name$tab$since
    [ -z "$1" ] && echo "entry$tab$name$tab$since"
  done
}

if [ "$1" = list ]; then
  look ""
  { [ -r "$lock" ] && ! flock -s -n 0 <"$lock"; } 2>/dev/null && echo held
  echo end
  exit 0
fi

{ mkdir -p "$folder"; [ -e "$lock" ] || (set -C; : >"$lock"); mkdir -m 1777 "$queue"; } 2>/dev/null
if [ ! -r "$lock" ] || [ ! -w "$queue" ]; then echo "refused$tab$folder"; exit 0; fi
who=$2
while :; do
  read -r uptime rest 2>/dev/null </proc/uptime || uptime=$(date +%s).00
  number=$(printf '%012d' "${uptime%.*}${uptime#*.}")
  set -- "$queue/$number".*
  [ -e "$1" ] || break
  sleep 0.01
done
mine=$queue/$number.$$ hidden=$queue/.$number.$$
# The kernel closes descriptors in order: the lock is free before the ticket goes, and the next one gets both.
exec 8<"$lock" 9<>"$hidden"
flock 0 <&9 || { rm -f "$hidden"; echo no-flock; exit 0; }
echo "$who" >&9
mv "$hidden" "$mine"
while look "$mine"; [ -n "$last" ]; do
  echo "waiting$tab$count$tab$first"
  flock -s 0 <"$last" 8>&- 9>&- || sleep 1
done
flock -n 0 <&8 || { echo "waiting${tab}0$tab$tab"; flock 0 <&8; }
date -u +%Y-%m-%dT%H:%M:%SZ >&9
echo held
sleep 604800 8>&- 9>&-
"""
"""For ``sh -c SCRIPT lathe-lock take WHO`` and ``... list``; answers in lines of fields between tabs.

``take`` prints ``waiting COUNT WHO SINCE`` for those before it and ``held`` when it has the device, which it
keeps until it is killed; ``refused FOLDER`` when it cannot write there, ``no-flock`` when the command or the
file system does not lock. ``list`` prints ``entry WHO SINCE`` for each ticket, ``held`` if the lock is, and
``end``. Nothing in it polls: who waits or holds takes no processor time from what is being measured.
"""

_ordinal = itertools.count()


@dataclass(frozen=True)
class QueueEntry:
    """Somebody in the queue; ``since`` when they have the device (ISO 8601, the device's clock), or empty."""

    who: str
    since: str = ""


@dataclass(frozen=True)
class LockState:
    """Who has a device and who waits for it, in order; ``taken`` also when its holder has no ticket."""

    taken: bool
    entries: tuple[QueueEntry, ...] = ()

    @property
    def holder(self) -> QueueEntry | None:
        """Who has it, as far as the tickets say."""
        return next((entry for entry in self.entries if entry.since), None)

    @property
    def waiting(self) -> tuple[QueueEntry, ...]:
        """Who waits, in order."""
        return tuple(entry for entry in self.entries if not entry.since)


def machine_folder() -> Path:
    """Where this machine keeps its own lock; ``SCRIPT`` chooses alike."""
    chosen = os.environ.get("LATHE_STATE_DIR")
    android = Path("/data/local/tmp")
    return Path(chosen) if chosen else android if android.is_dir() else Path("/tmp")


def printable(text: str) -> str:
    """What others wrote, on one line and without what a terminal could take for a command."""
    return re.sub(r"\s+", " ", "".join(char if char.isprintable() else " " for char in text[:200])).strip()


class Ticket:
    """A place in the queue of a folder on this machine, kept by this process until ``close``."""

    def __init__(self, folder: Path, who: str) -> None:
        """Join the queue at its end.

        Raises:
            OSError: the folder or what is in it cannot be read or written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._queue = folder / QUEUE
        with contextlib.suppress(FileExistsError):
            self._queue.mkdir()
            self._queue.chmod(0o1777)
        with contextlib.suppress(FileExistsError):
            create_shared(folder / LOCK)
        with contextlib.ExitStack() as opened:
            name = f"{self._number()}.{os.getpid()}.{next(_ordinal)}"
            self.path = self._queue / name
            hidden = self._queue / f".{name}"
            create_shared(hidden)
            opened.callback(self.path.unlink, missing_ok=True)
            opened.callback(hidden.unlink, missing_ok=True)
            self._ticket = opened.enter_context(descriptor_of(hidden, os.O_RDWR))
            fcntl.flock(self._ticket, fcntl.LOCK_EX)
            self._write(f"{who}\n")
            hidden.rename(self.path)
            self._lock = opened.enter_context(descriptor_of(folder / LOCK))
            self._opened = opened.pop_all()

    def ahead(self) -> tuple[QueueEntry, ...]:
        """Those whose turn comes before this one, in order."""
        return tuple(entry for name, entry in _living(self._queue) if name < self.path.name)

    def take(self) -> bool:
        """Take the device if it is this one's turn and nobody has it."""
        if self.ahead():
            return False
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._write(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ\n"))
        return True

    def close(self) -> None:
        """Leave the queue, and with it the device."""
        self._opened.close()

    def _number(self) -> str:
        """The moment, as nobody else has it yet."""
        while any(self._queue.glob(f"{(number := f'{_uptime_hundredths():012d}')}.*")):
            time.sleep(0.01)
        return number

    def _write(self, line: str) -> None:
        """Who has the device is only for others to read: a full disk is no reason not to have it."""
        with contextlib.suppress(OSError):
            os.write(self._ticket, line.encode("utf-8", "replace"))


def lock_state(folder: Path) -> LockState:
    """Who has and wants the device whose lock is in a folder of this machine."""
    entries = tuple(entry for _, entry in _living(folder / QUEUE))
    try:
        with descriptor_of(folder / LOCK) as descriptor:
            return LockState(not lockable(descriptor), entries)
    except OSError:
        return LockState(False, entries)


def _living(queue: Path) -> Iterator[tuple[str, QueueEntry]]:
    """The tickets whose processes live, in order; the others are removed where that is permitted."""
    for path in sorted(queue.glob("[0-9]*")):
        with contextlib.suppress(OSError), descriptor_of(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
            if lockable(descriptor):
                path.unlink()
            else:
                who, since, *_ = [*os.read(descriptor, 4096).decode("utf-8", "replace").split("\n"), "", ""]
                yield path.name, QueueEntry(printable(who), printable(since))


def lockable(descriptor: int) -> bool:
    """Whether nobody holds this file; several may ask at once."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def create_shared(path: Path) -> None:
    """A new empty file that everybody may read."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o644)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def descriptor_of(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A file that is no link, open meanwhile."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _uptime_hundredths() -> int:
    """Hundredths of a second since the machine started, alike for all its processes."""
    try:
        return int(Path("/proc/uptime").read_text().split()[0].replace(".", ""))
    except (OSError, ValueError, IndexError):
        return int(time.time()) * 100
