"""The shell scripts by which remote devices are used, and how they are handed to a device's shell.

Each is a constant script for a POSIX shell; what is different from one use to the next are its arguments.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

# Runs "$@" in a session of its own. Whatever ends first, the command, its time, or the standard input of this
# script, which the host keeps open as long as it wants the command: afterwards nothing of it is left. It may
# not have a group yet, so both are killed, the process and its group.
# A shell gives processes in the background /dev/null as standard input, unless they are given a number.
# Arguments: bytes of standard input, a file to keep them in, seconds, command...
RUN = """
size=$1 input=$2 limit=$3; shift 3
umask 077
trap : HUP TERM
exec 3<&0 4</dev/null
if [ "$size" -gt 0 ]; then
  head -c "$size" > "$input" && exec 4< "$input" && got=$(wc -c < "$input")
  failed=$?; rm -f "$input"
  [ "$failed" = 0 ] && [ "$got" -eq "$size" ] || { echo standard input could not be stored >&2; exit 126; }
fi
setsid -- "$@" <&4 3<&- 4<&- & child=$!
exec 2> /dev/null > /dev/null
setsid sh -c 'sleep "$1"; kill -9 "$2" "-$2"' timer "$limit" "$child" 3<&- 4<&- & timer=$!
{ while read -r _; do :; done; kill -9 "$child" "-$child" "$timer" "-$timer"; } <&3 & watcher=$!
wait "$child"; status=$?
kill -9 "$watcher" "$timer" "-$timer" "$child" "-$child"
exit "$status"
"""

# The first folder in which a scratch folder can be made, and that. Of what connections left there, and of
# nothing else, goes what nobody has used for a month: scratch folders, and files named by their digest.
# A folder of another user is not trusted with files that will be run.
# Arguments: an earlier scratch folder or "", folders to try instead of the usual ones...
OPEN = r"""
umask 077
scratch=$1; shift
digest='[0-9a-f]'
for _ in 1 2 3; do digest=$digest$digest$digest$digest; done
if [ $# = 0 ]; then
  if [ -d /data/local/tmp ]; then set -- /data/local/tmp/lathe; fi
  set -- "$@" "${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/lathe" \
    "/var/tmp/lathe-$(id -u)" "/tmp/lathe-$(id -u)"
fi
for folder; do
  case $folder in '~/'*) folder=$HOME/${folder#??};; esac
  mkdir -p -- "$folder" || continue
  if [ -L "$folder" ] || [ ! -O "$folder" ]; then echo "$folder belongs to somebody else" >&2; continue; fi
  find "$folder" -mindepth 1 -maxdepth 1 -mtime +30 \
    \( -type d -name 'lathe-scratch-??????' -o -type f -name "$digest*" \) -exec rm -rf {} + 2> /dev/null
  if [ -n "$scratch" ]; then mkdir -p -- "$scratch"
  else scratch=$(mktemp -d "$folder/lathe-scratch-XXXXXX")
  fi && { echo "$folder"; echo "$scratch"; exit 0; }
  scratch=
done
exit 1
"""

# Arguments: size in bytes, path.
HAS = '[ -f "$2" ] && [ "$(wc -c < "$2")" -eq "$1" ] && touch -c "$2"'
# Arguments: size in bytes, path.
STORE = 'umask 077; head -c "$1" > "$2"'
# Executable, since tools are pushed too. Arguments: size in bytes, temporary path, path.
PUBLISH = '[ "$(wc -c < "$2")" -eq "$1" ] && chmod 700 "$2" && mv -f "$2" "$3"'
# Files of a model under the names by which it looks for them. Phones forbid hard links, and a runtime may
# refuse links of the other kind. Arguments: folder, then for each file where it is and its name there.
TOGETHER = """
umask 077
folder=$1; shift
while [ "$#" -gt 1 ]; do
  place=$folder/$2
  mkdir -p "${place%/*}" || exit 1
  [ -e "$place" ] || ln "$1" "$place" 2> /dev/null || cp "$1" "$place" || exit 1
  shift 2
done
"""
REMOVE = 'rm -rf -- "$1"'
SHOW = 'cat < "$1"'


def shell_command(script: str, arguments: Sequence[str]) -> str:
    """The command by which a POSIX shell runs a script with arguments."""
    return "exec " + shlex.join(("sh", "-c", script, "lathe", *arguments))


def for_any_shell(command: str) -> str:
    """A command for a POSIX shell, written so that csh, tcsh and fish hand it to ``sh`` as it is.

    These read line ends, ``!``, backslashes and quotes within quotes each in their own way. So the text is
    given as octal numbers wherever it is not plain, and ``sh`` puts it together again.
    """
    encoded = "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\0{byte:03o}"
        for byte in command.encode("utf-8", "surrogateescape")
    )
    return f"exec sh -c 'eval \"$(printf %b \"$1\")\"' lathe '{encoded}'"
