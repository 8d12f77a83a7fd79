"""Devices work at once, each on one thing at a time, and this machine alone afterwards."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from devices.errors import TargetError
from devices.measuring import GoingOn, side_by_side
from devices.target import Target

ONE, OTHER = Target("one", "onnxruntime"), Target("other", "litert")
ONE_TOO = Target("one", "litert")
HERE, HERE_TOO = Target("host", "onnxruntime"), Target("another-python", "litert")


def test_devices_work_at_once_and_this_machine_alone_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "devices.toml"
    file.write_text(f'[devices.{HERE_TOO.device}]\nconnection = "local"\npython = ["{sys.executable}"]\n')
    monkeypatch.setenv("LATHE_DEVICES", str(file))
    both = threading.Barrier(2, timeout=60)
    order: list[Target] = []

    def meet(target: Target) -> Callable[[GoingOn], str]:
        def work(going_on: GoingOn) -> str:
            going_on()
            if target not in (HERE, HERE_TOO):
                both.wait()
            order.append(target)
            return str(target)

        return work

    targets = (HERE, ONE, OTHER, HERE_TOO)
    found = side_by_side({target: meet(target) for target in targets})
    assert found == {target: str(target) for target in targets}
    assert list(found) == list(targets)
    assert order[2:] == [HERE, HERE_TOO]


def test_targets_of_one_device_come_one_after_the_other() -> None:
    threads: dict[Target, int] = {}
    both = threading.Barrier(2, timeout=60)

    def work(target: Target) -> Callable[[GoingOn], None]:
        def note(going_on: GoingOn) -> None:
            threads[target] = threading.get_ident()
            if target is not ONE_TOO:
                both.wait()

        return note

    side_by_side({target: work(target) for target in (ONE, OTHER, ONE_TOO)})
    assert threads[ONE] == threads[ONE_TOO] != threads[OTHER]


@pytest.mark.parametrize("targets", [(ONE, ONE_TOO), (HERE,), (HERE, ONE)])
def test_one_device_needs_no_thread(targets: tuple[Target, ...]) -> None:
    found = side_by_side({target: lambda going_on: threading.current_thread() for target in targets})
    assert set(found.values()) == {threading.current_thread()}


def test_a_device_that_fails_is_told_at_once_and_raised_when_the_others_are_done() -> None:
    told: list[str] = []
    failed, done = threading.Event(), []

    def say(line: str) -> None:
        told.append(line)
        failed.set()

    def gone(going_on: GoingOn) -> None:
        raise TargetError("device 'one' is gone")

    def finish(going_on: GoingOn) -> None:
        assert failed.wait(60)
        done.append(OTHER)

    with pytest.raises(TargetError, match="device 'one' is gone"):
        side_by_side({ONE: gone, ONE_TOO: finish, OTHER: finish, HERE: finish}, say)
    assert told == ["one/onnxruntime:fp32@1: device 'one' is gone; the other devices go on"]
    # What came after it on the same device was not begun.
    assert done == [OTHER, OTHER]


def test_of_several_failures_the_first_by_order_is_raised() -> None:
    both = threading.Barrier(2, timeout=60)

    def fail(name: str) -> Callable[[GoingOn], None]:
        def work(going_on: GoingOn) -> None:
            both.wait()
            raise TargetError(name)

        return work

    with pytest.raises(TargetError, match="the first"):
        side_by_side({ONE: fail("the first"), OTHER: fail("the second")})


@pytest.mark.parametrize("error", [RuntimeError("a fault"), KeyboardInterrupt()])
def test_a_fault_or_an_interrupt_ends_the_others_at_their_next_step(error: BaseException) -> None:
    steps, begun = threading.Semaphore(1_000_000), threading.Event()

    def fault(going_on: GoingOn) -> None:
        assert begun.wait(60)
        raise error

    def endless(going_on: GoingOn) -> None:
        begun.set()
        while steps.acquire(blocking=False):
            going_on()
            threading.Event().wait(0.001)

    with pytest.raises(type(error)):
        side_by_side({ONE: fault, OTHER: endless})
    assert steps.acquire(blocking=False), "the other one was given up, it did not end by itself"
