# Sourced by tools/lathe, tools/test and .ci/run: makes the virtual environment .venv of this checkout.
#
# `set_up EXTRAS` returns at once when a stamp says that .venv was made from exactly these inputs: the place
# of the checkout, the Python, pyproject.toml and constraints.txt. The stamp holds the inputs themselves.

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
venv=$root/.venv
unfinished=$venv/lathe-unfinished
log=$venv/lathe-install.log
test_extras=quickstart,openvino,executorch,huggingface,sign,ssh,postgresql,exchange,nni,search,ray,docs,dev

say() { printf 'lathe: %s\n' "$*" >&2; }

fail() { # WHAT WHY FIX
    printf 'error: %s\nWhy: %s\nFix: %s\n' "$1" "$2" "$3" >&2
    exit 1
}

inputs() {
    printf '%s\n' "$root"
    "$venv/bin/python" -I -S -c 'import sys; print(sys.version)'
    cat "$root/pyproject.toml" "$root/constraints.txt"
}

stamp() { printf '%s/lathe-stamp-%s' "$venv" "$1"; }

is_set_up() { # EXTRAS
    [ -f "$(stamp "$1")" ] && [ -x "$venv/bin/python" ] && [ "$(inputs)" = "$(cat "$(stamp "$1")")" ]
}

# The first Python of at least 3.11 that can make virtual environments, in $python.
find_python() {
    local candidate lacks_venv=
    for candidate in ${LATHE_PYTHON:+"$LATHE_PYTHON"} python3.11 python3.12 python3.13 python3; do
        if "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            if "$candidate" -I -c 'import ensurepip, venv' 2>/dev/null; then
                python=$candidate
                return
            fi
            lacks_venv=$candidate
        fi
        [ -z "${LATHE_PYTHON:-}" ] || break
    done
    [ -z "$lacks_venv" ] || fail "$lacks_venv cannot make virtual environments" \
        "its modules venv and ensurepip are not both installed" \
        "install them (Debian, Ubuntu: apt install python3-venv) and repeat the command"
    [ -z "${LATHE_PYTHON:-}" ] || fail "LATHE_PYTHON=$LATHE_PYTHON is not a Python of version 3.11 or newer" \
        "it does not run, or it is older" "set LATHE_PYTHON to a newer Python, or unset it"
    fail "no Python of version 3.11 or newer was found" \
        "none of python3.11, python3.12, python3.13 and python3 on the PATH is one" \
        "install one (Debian, Ubuntu: apt install python3 python3-venv), or set LATHE_PYTHON to its path"
}

pip_install() { # ARGUMENTS of pip install; shows what is downloaded, logs everything
    "$venv/bin/python" -m pip install --no-input --disable-pip-version-check --progress-bar off \
        --constraint "$root/constraints.txt" "$@" 2>&1 |
        while IFS= read -r line; do
            printf '%s\n' "$line" >>"$log"
            case $line in *"Downloading "*".whl"* | "Installing collected"*) say "${line:0:110}" ;; esac
        done
}

# On Linux, plain torch brings several gigabytes of CUDA; the +cpu build is a tenth of it. Not every index has
# one: LATHE_TORCH_INDEX names an index that does.
install_torch() {
    local version
    version=$(sed -n 's/^torch==//p' "$root/constraints.txt")
    [ -n "$version" ] && [ "$(uname -s)" = Linux ] || return 0
    pip_install --no-deps ${LATHE_TORCH_INDEX:+--index-url "$LATHE_TORCH_INDEX"} "torch==$version+cpu" ||
        say "no CPU build of torch $version is offered; installing the plain one"
}

install_all() { # EXTRAS
    pip_install setuptools && install_torch && cd "$root" && pip_install --no-build-isolation --editable ".[$1]"
}

# A copy that was moved, made by another Python, or left by a killed installation is made anew.
is_usable() {
    [ ! -e "$unfinished" ] && grep -qF -- "$venv" "$venv/bin/activate" && "$venv/bin/python" -m pip --version
} >/dev/null 2>&1

install() { # EXTRAS
    local started=$SECONDS
    if ! is_usable; then
        say "making $venv with $("$python" --version 2>&1)"
        rm -rf "$venv"
        mkdir "$venv" && : >"$unfinished"
        "$python" -m venv "$venv" || fail "the virtual environment $venv cannot be made" \
            "see the message above" "mend that and repeat the command"
    fi
    : >"$unfinished"
    say "installing the pinned packages; this happens once and takes minutes (log: $log)"
    if ! (install_all "$1"); then
        tail -n 15 "$log" >&2
        rm -f "$unfinished" # pip gave up by itself, so what it had installed is whole
        fail "the packages could not be installed" "see the messages of pip above" \
            "check the network and the free disk space, then repeat the command"
    fi
    for extras in quickstart "$1"; do
        inputs >"$(stamp "$extras").new"
        mv -f "$(stamp "$extras").new" "$(stamp "$extras")"
    done
    rm -f "$unfinished"
    say "installed in $((SECONDS - started)) s"
}

set_up() { # EXTRAS, a list that begins with quickstart
    if is_set_up "$1"; then return; fi
    find_python
    [ -w "$root" ] || fail "$root cannot be written" "the virtual environment is made in it" \
        "clone the project into a folder of your own"
    # The lock belongs to the open file and not to the Python that takes it, so this shell and its children
    # hold it. A file of the checkout is locked because .venv itself may be removed.
    exec 9>>"$root/constraints.txt"
    "$python" -I -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print("lathe: waiting for another installation into this checkout", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)
'
    is_set_up "$1" || install "$1"
    exec 9>&-
}
