"""What else a device is doing is told by name."""

import subprocess
import sys

import pytest

from devices.connections import Completed, LocalConnection
from devices.errors import MeasurementError
from devices.measuring import OtherLoad, busy_with
from devices.measuring.busy import parse_load


def reading(uptime, cpu, *processes):
    return [f"uptime {uptime} 0.0", f"cpu  {cpu}", *processes]


def process(number, name, parent, user, system):
    return f"{number} ({name}) S {parent} 1 1 0 -1 4194560 1 2 3 4 {user} {system} 0 0 20 0 1 0 5"


def lines(before, after, cores=4):
    return ["ticks 100", f"processors {cores}", *before, "again", *after, "end"]


def test_load_is_what_all_processors_did_without_this_process_and_its_children():
    before = reading(
        10.0,
        "100 0 50 900 0 0 0 0",
        process(7, "lathe", 1, 10, 0),
        process(8, "agent", 7, 10, 0),
        process(9, "ffmpeg (hd) x", 1, 50, 0),
    )
    after = reading(
        10.5,
        "170 10 60 950 0 5 5 10",
        process(7, "lathe", 1, 15, 0),
        process(8, "agent", 7, 30, 5),
        process(9, "ffmpeg (hd) x", 1, 90, 5),
        process(10, "sh", 7, 0, 0),
    )
    load = parse_load(lines(before, after), own=7)
    # 100 ticks were spent in 50; 5 + 25 of them are ours
    assert load == OtherLoad(4, 70 / 50, 10 / 50, (("ffmpeg (hd) x", 45 / 50),))
    assert load.disturbs
    assert str(load) == (
        "1.4 of 4 cores are busy (ffmpeg (hd) x 0.9), the hypervisor gives 0.2 to other machines"
    )


def test_processes_of_one_name_count_together_and_the_busiest_three_are_named():
    names = ["make", "cc1", "cc1", "ld", "idle", "tar"]
    before = [process(number, name, 1, 0, 0) for number, name in enumerate(names, 20)]
    spent = [1, 20, 20, 10, 0, 30]
    after = [
        process(number, name, 1, ticks, 0)
        for number, (name, ticks) in enumerate(zip(names, spent, strict=True), 20)
    ]
    load = parse_load(
        lines(reading(1.0, "0 0 0 0 0 0 0 0", *before), reading(2.0, "81 0 0 0 0 0 0 0", *after)), own=None
    )
    assert load.processes == (("cc1", 0.4), ("tar", 0.3), ("ld", 0.1))


def test_a_quiet_machine_does_not_disturb():
    still = reading(1.0, "5 0 0 0 0 0 0 0"), reading(1.5, "6 0 0 49 0 0 0 0")
    load = parse_load(lines(*still), own=None)
    assert not load.disturbs
    assert str(load) == "0.0 of 4 cores are busy"


def test_what_computes_on_this_machine_is_seen():
    spinning = subprocess.Popen(
        ["sh", "-c", f"exec {sys.executable} -c 'while True: pass'"], start_new_session=True
    )
    try:
        load = busy_with("host", connection=Foreign())
    finally:
        spinning.kill()
        spinning.wait()
    assert load.cores >= 1
    assert load.busy_cores > 0
    assert load.processes


def test_own_processes_are_not_the_load_of_others():
    assert busy_with("host").cores >= 1


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_device_that_tells_numbers_without_an_end_is_an_error(digits):
    still = reading(1.0, "5 0 0 0 0 0 0 0"), reading(1.5, f"{'9' * digits} 0 0 49 0 0 0 0")
    with pytest.raises(MeasurementError, match="does not say what it is doing"):
        busy_with("host", connection=Saying(lines(*still)))


def test_a_device_that_tells_nothing_is_an_error():
    with pytest.raises(MeasurementError, match="does not say what it is doing"):
        busy_with("host", connection=Saying([]))


class Foreign(LocalConnection):
    """This machine as another one sees it, to which no process there is its own."""

    shares_clock = False


class Saying(LocalConnection):
    def __init__(self, said):
        super().__init__()
        self.said = said

    def run(self, argv, *, on_line, **options):
        for line in self.said:
            on_line(line)
        return Completed(0, "")
