"""How the end of a process is told."""

import pytest

from devices.connections import Completed
from devices.runtimes.base import describe_end


@pytest.mark.parametrize(
    ("ended", "code", "says"),
    [
        (Completed(-4, ""), "crashed-signal-4", "an instruction that this processor lacks"),
        (Completed(-9, "loading"), "crashed-signal-9", "often because memory ran out; loading"),
        (Completed(-12, "odd"), "crashed-signal-12", "odd"),
        (Completed(3, ""), "crashed-exit-3", "nothing was written on standard error"),
        (Completed(-9, "slow", timed_out=True), "timeout", "slow"),
        (Completed(0, ""), "truncated-output", "nothing was written"),
    ],
)
def test_the_end_of_a_process_has_a_code_and_says_what_it_means(ended, code, says):
    found = describe_end(ended)
    assert found[0] == code
    assert says in found[1]
    assert ("killed" in found[1]) == (code == "crashed-signal-9")
