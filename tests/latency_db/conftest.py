from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from latency_db.store.store import Store, open_store
from tests.latency_db import postgresql_server
from tests.latency_db.postgresql_server import PostgresqlServer


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresqlServer]:
    """A PostgreSQL server; a test that stops it starts it again."""
    reason = postgresql_server.missing()
    if reason is not None:
        pytest.skip(reason)
    running = PostgresqlServer()
    try:
        running.start()
        yield running
    finally:
        running.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def new_location(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes locations of databases that do not exist yet (a file) or are empty (on a server)."""
    if request.param == "postgresql":
        new_database: Callable[[], str] = request.getfixturevalue("server").new_database
        return new_database
    names = iter(range(100))
    return lambda: str(tmp_path / f"latency-{next(names)}.db")


@pytest.fixture
def location(new_location: Callable[[], str]) -> str:
    return new_location()


@pytest.fixture
def store(location: str) -> Iterator[Store]:
    with open_store(location) as opened:
        yield opened
