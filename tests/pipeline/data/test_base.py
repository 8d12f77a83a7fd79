from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.base import Split


@given(count=st.integers(0, 12), length=st.integers(1, 10))
def test_first_and_after_are_all_rows_in_order_and_none_is_copied(count: int, length: int) -> None:
    images = np.arange(length, dtype=np.uint8).reshape(length, 1, 1, 1)
    split = Split(images, np.arange(length))
    first, rest = split.first(count), split.after(count)
    assert len(first) == min(count, length)
    assert [*first.labels, *rest.labels] == list(range(length))
    for part in (first, rest):
        assert part.images.reshape(-1).tolist() == part.labels.tolist()
        assert not len(part) or np.shares_memory(part.images, images)
