"""What a model was fed with."""

from __future__ import annotations

import pytest

from devices.measurement import InputUse, fed_alike


def use(*shape: int) -> InputUse:
    return InputUse("x", "float32", shape, tuple(map(str, shape)), "random")


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ([use(1, 3, 32, 32)], [use(1, 3, 1, 1)], False),
        ([use(1, 3, 32, 32)], [use(1, 32, 32, 3)], True),
        ([use(1, 8), use(1, 4)], [use(4, 1), use(8)], True),
        ([use(1, 8), use(1, 8)], [use(1, 8)], False),
        ([], [use(1, 8)], True),
    ],
)
def test_models_are_fed_alike_if_they_get_as_many_numbers(
    first: list[InputUse], second: list[InputUse], alike: bool
) -> None:
    assert fed_alike(first, second) is alike
    assert fed_alike(second, first) is alike
