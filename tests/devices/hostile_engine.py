"""An engine whose artifacts are scripts of misbehaviour: the first word of the file says what happens.

It stands for a runtime with defects that no installed runtime shows at will.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def version():
    return "1.0"


def binaries():
    return [__file__]


def canary(settings):
    return Model(None, settings)


class Model:
    def __init__(self, path, settings):
        self.inputs = [((1, 2), "float32")]
        self._word, _, self._rest = ("run" if path is None else Path(path).read_text()).partition(" ")
        if self._word == "wander":
            turns = Path(self._rest)
            turns.write_text((turns.read_text() if turns.exists() else "") + "x")
            self._pause_s = 0.002 * len(turns.read_text())
        if self._word == "refuse":
            raise ValueError("no such operation")
        if self._word == "die-loading":
            os.kill(os.getpid(), signal.SIGSEGV)

    def set_inputs(self, arrays):
        self._arrays = arrays

    def run(self):
        if self._word == "die":
            print("about to die", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self._word == "exit":
            os._exit(5)
        elif self._word == "hang":
            if self._rest:
                Path(self._rest).write_text(str(os.getpid()))
            time.sleep(600)
        elif self._word == "raise":
            raise RuntimeError("overflow")
        elif self._word == "exhaust":
            raise MemoryError
        elif self._word == "babble":
            print('{"event": "result", "job": 0}', flush=True)
            os.write(1, b"\xff\xfenot json\n")
        elif self._word == "die-once" and not Path(self._rest).exists():
            Path(self._rest).write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._word == "wander":
            time.sleep(self._pause_s)
        elif self._word == "slow":
            time.sleep(0.05)
        else:
            end = time.perf_counter() + 0.0001
            while time.perf_counter() < end:
                pass

    def outputs(self):
        return self._arrays

    def placement(self):
        if self._word == "fall-back":
            return [
                {"where": "hostile", "nodes": 2, "partitions": 2},
                {"where": "elsewhere", "nodes": 1, "partitions": 1},
            ]
        return [{"where": "hostile", "nodes": 3, "partitions": 1}]
