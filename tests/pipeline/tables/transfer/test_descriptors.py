from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.spaces.base import Block, Choice
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.transfer.descriptors import describe

SPACE = MobileSpace.from_config(None, (1, 8, 8), 10)
NAMES = st.sampled_from(["kernel", "stride", "activation", "gate"])
CHOICES: st.SearchStrategy[Choice] = st.one_of(
    st.booleans(), st.integers(0, 64), st.floats(0, 1), st.sampled_from(["relu", "swish"])
)
BLOCKS = st.builds(
    Block,
    st.sampled_from(["conv", "pool"]),
    st.tuples(*[st.integers(1, 64)] * 3),
    st.dictionaries(NAMES, CHOICES).map(lambda arguments: tuple(sorted(arguments.items()))),
)


def test_blocks_of_a_space_are_told_apart() -> None:
    table = describe(SPACE.distinct_blocks())
    assert len(table) == len(SPACE.distinct_blocks())
    assert len(np.unique(table, axis=0)) == len(table)


@given(blocks=st.lists(BLOCKS, min_size=1, max_size=20))
def test_blocks_of_any_space_have_finite_features(blocks: list[Block]) -> None:
    table = describe(blocks)
    assert table.shape[0] == len(blocks)
    assert np.isfinite(table).all()


@given(blocks=st.lists(BLOCKS, min_size=2, max_size=10), data=st.data())
def test_the_order_of_blocks_only_orders_the_rows(blocks: list[Block], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(blocks))))
    np.testing.assert_allclose(describe([blocks[i] for i in order]), describe(blocks)[order])


def test_words_are_columns_of_their_own() -> None:
    one, other = (Block("conv", (3, 8, 8), (("activation", word),)) for word in ("relu", "swish"))
    rows = describe([one, other])
    assert np.abs(rows[0] - rows[1]).sum() == 2
