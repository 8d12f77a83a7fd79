from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from latency_db.errors import StoreError
from latency_db.history import history_of, own_history
from latency_db.store import open_store
from tests.latency_db.made_up_history import START, batch, hourly, store_batches, wave
from tests.latency_db.measurement_samples import DEVICE


def test_the_own_database_tells_of_the_machines_that_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_DB", str(tmp_path / "own.db"))
    with open_store() as store:
        store_batches(store, hourly(wave(20, 0.03)))
        known = history_of(store, DEVICE).between
    seen = batch(START)
    with own_history(None) as between:
        assert between(seen) == known
        assert between(replace(seen, device=replace(DEVICE, instance="another"))) is None


def test_no_database_is_made_and_one_that_is_named_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_DB", str(tmp_path / "own.db"))
    with own_history(None) as between:
        assert between(batch(START)) is None
    with pytest.raises(StoreError, match="there is no latency database"), own_history(str(tmp_path / "x.db")):
        pass
    assert not list(tmp_path.iterdir())


def test_a_database_of_ones_own_that_is_damaged_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.db"
    own.write_bytes(b"no database" * 1000)
    monkeypatch.setenv("LATHE_DB", str(own))
    with pytest.raises(StoreError, match=r"own\.db"), own_history(None):
        pass
