from __future__ import annotations

from pathlib import Path

import pytest

from devices.connections import LocalConnection
from tests.contracts.connection import ConnectionContract


class TestLocalConnection(ConnectionContract):
    @pytest.fixture
    def connection(self):
        with LocalConnection() as connection:
            yield connection


def test_scratch_is_removed_when_the_block_ends_in_an_error():
    with pytest.raises(RuntimeError), LocalConnection() as connection:
        folder = Path(connection.scratch())
        (folder / "file").write_text("x")
        raise RuntimeError
    assert not folder.exists()
