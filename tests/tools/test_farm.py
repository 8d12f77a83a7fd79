"""The simulated farm obeys what can be worked out by hand; a real PostgreSQL loses nothing under its rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.latency_db import postgresql_server
from tests.latency_db.postgresql_server import PostgresqlServer
from tools.bench.farm import Farm, load, simulate

ONE = Farm(devices=1, models=1, files=64, targets=1, cores=1, fastest=1.0, slowest=1.0)


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[PostgresqlServer]:
    reason = postgresql_server.missing()
    if reason is not None:
        pytest.skip(reason)
    server = PostgresqlServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def test_one_device_takes_the_sum_of_its_parts() -> None:
    found = simulate(ONE, 1, pools=False)
    per_file_s = ONE.export_s + ONE.device_s + ONE.host_s + ONE.row_s
    assert found["hours"] == pytest.approx(64 * per_file_s / 3600)
    assert found["rows"] == 64


def test_two_devices_share_their_host_and_a_pool_shares_its_table() -> None:
    two = replace(ONE, devices=2)
    alone, pool = simulate(two, 1, pools=False), simulate(two, 1, pools=True)
    together_s = ONE.export_s + ONE.device_s + 2 * (ONE.host_s + ONE.row_s)
    # While rows of the first are stored, the host is at work for the second.
    assert alone["hours"] == pytest.approx(64 * (together_s - ONE.row_s) / 3600)
    assert (alone["rows"], pool["rows"]) == (128, 64)
    halves = replace(two, batch=32)
    assert simulate(halves, 1, pools=True)["hours"] < simulate(ONE, 1, pools=False)["hours"]


@pytest.mark.parametrize("pools", [False, True])
def test_the_slowest_model_bounds_the_farm_and_more_hosts_never_take_longer(pools: bool) -> None:
    farm = Farm()
    found = [simulate(farm, hosts, pools=pools) for hosts in (1, 4, 16)]
    files = farm.files * farm.targets / (farm.devices / farm.models if pools else 1)
    least_h = files * farm.device_s * farm.slowest / 3600
    assert all(least_h <= each["hours"] for each in found)
    assert found[0]["hours"] >= found[1]["hours"] >= found[2]["hours"]
    owners = farm.models if pools else farm.devices
    assert {each["rows"] for each in found} == {owners * farm.files * farm.targets}


def test_a_host_with_too_much_to_do_is_what_takes_the_time() -> None:
    busy = replace(Farm(), host_s=1.0)
    found = simulate(busy, 1, pools=False)
    assert found["hosts_busy"] > 0.9
    assert found["hours"] > 2 * simulate(busy, 16, pools=False)["hours"]


def test_a_database_under_the_rate_of_the_farm_loses_nothing(server: PostgresqlServer) -> None:
    found = load(server.new_database(), rate=90.0, seconds=3.0, writers=2, batch=16)
    assert (found["rows"], found["lost"], found["twice"], found["problems"]) == (270, 0, 0, [])
