"""Stand-ins of phones on this machine, to try what needs several of them.

    python -m tools.stand_in_phones FOLDER [--count 2] [--seconds 0.05]

The real adb client reaches them, by a server of their own. What answers is a shell of this machine, and a
program that prints what LiteRT's benchmark_model prints, after some time and with latencies that are made up
from the size of the file. FOLDER gets a devices.toml with the phones and their pool ``phones``. They are
there until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.devices.adb_daemon import AdbDaemon
from tests.devices.ports import free_port

ADB = """\
#!/bin/sh
unset ADB_VENDOR_KEYS ANDROID_SERIAL ADB_SERVER_SOCKET
export HOME='{folder}' TMPDIR='{folder}' ADB_LOCAL_TRANSPORT_MAX_PORT=5553 ADB_MDNS=0
exec adb "$@"
"""

BENCHMARK_MODEL = """\
#!/bin/sh
# The wording of tflite/tools/benchmark, with times that are made up from the size of the file.
graph= runs=0
for argument; do
    case $argument in
        --help=true)
            echo "INFO: STARTING!"
            printf 'ERROR: usage: %s <flags>\\nFlags:\\n' "$0" >&2
            printf '\\t--num_runs=50\\tint32\\toptional\\texpected number of runs\\n' >&2
            printf '\\t--graph=\\tstring\\toptional\\tgraph file name\\n' >&2
            exit 1 ;;
        --graph=*) graph=${argument#--graph=} ;;
        --num_runs=*) runs=${argument#--num_runs=} ;;
    esac
done
us=$((40 + $(wc -c < "$graph") / 100))
sleep {seconds}
statistics="first=$us curr=$us min=$us max=$us avg=$us std=0 p5=$us median=$us p95=$us"
applied="Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the"
echo "INFO: STARTING!"
echo "INFO: Graph: [$graph]"
echo "INFO: Loaded model $graph"
kernel=TfLiteXNNPackDelegate
echo "VERBOSE: Replacing 33 out of 33 node(s) with delegate ($kernel) node, yielding 1 partitions." >&2
echo "INFO: $applied delegate."
echo "INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds."
printf 'INFO: count=5 %s\\n\\n' "$statistics"
echo "INFO: Running benchmark for at least $runs iterations and at least 1 seconds."
printf 'INFO: count=%s %s\\n\\n' "$runs" "$statistics"
echo "INFO: Inference timings in us: Init: 900, First inference: $us, Warmup (avg): $us, Inference (avg): $us"
echo "INFO: Overall peak memory footprint (MB) via periodic monitoring: 9.2"
"""

GETPROP = """\
#!/bin/sh
case $1 in
    ro.product.manufacturer) echo Made-up ;;
    ro.product.model) echo "stand-in phone" ;;
    ro.soc.model) echo none ;;
    ro.build.version.release) echo 14 ;;
    ro.serialno) echo {name} ;;
    *) echo ;;
esac
"""

DUMPSYS = """\
#!/bin/sh
case $1 in
    battery) printf '  status: 5\\n  level: 90\\n  scale: 100\\n' ;;
    thermalservice)
        printf 'Thermal Status: 0\\nHAL Ready: true\\nCurrent temperatures from HAL:\\n'
        printf '\\tTemperature{mValue=31.0, mType=3, mName=VIRTUAL-SKIN, mStatus=0}\\n' ;;
esac
"""


def phone(folder: Path, name: str) -> AdbDaemon:
    """A phone with its own serial number, lock and folder for files."""
    programs = folder / name / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    for program, text in (("getprop", GETPROP.replace("{name}", name)), ("dumpsys", DUMPSYS)):
        write_program(programs / program, text)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "LATHE_STATE_DIR": str(folder / name),
        "HOME": "/",
    }
    return AdbDaemon(environment=environment)


def write_program(path: Path, text: str) -> Path:
    """A file that can be started."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def definition(name: str, address: str, folder: Path, port: int) -> str:
    """A phone as devices.toml has it."""
    return (
        f'[devices.{name}]\nconnection = "adb"\naddress = "{address}"\nadb = "{folder / "adb"}"\n'
        f'server_port = {port}\nfolder = "{folder / name / "files"}"\n'
        f'tools.benchmark_model = "{folder / "benchmark_model"}"\nnote = "a stand-in"\n\n'
    )


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2, help="how many")
    parser.add_argument("--seconds", type=float, default=0.05, help="how long a launch takes them")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    adb = write_program(folder / "adb", ADB.format(folder=folder))
    write_program(folder / "benchmark_model", BENCHMARK_MODEL.replace("{seconds}", str(given.seconds)))
    names, port = [f"phone-{number + 1}" for number in range(given.count)], free_port()
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with contextlib.ExitStack() as phones:
        served = {name: phones.enter_context(phone(folder, name)) for name in names}
        text = "".join(definition(name, each.address, folder, port) for name, each in served.items())
        members = ", ".join(f'"{name}"' for name in names)
        (folder / "devices.toml").write_text(f"{text}[pool.phones]\nmembers = [{members}]\n")
        sys.stderr.write(f"export LATHE_DEVICES={folder / 'devices.toml'}\nCtrl-C ends them\n")
        over.wait()
    subprocess.run([adb, "-P", str(port), "kill-server"], check=False, capture_output=True)


if __name__ == "__main__":
    main()
