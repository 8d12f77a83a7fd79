"""Candidates as tasks of a real Ray cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pipeline.errors import ExecutorError
from pipeline.search.base import Score
from pipeline.search.evaluators import ray_tasks
from pipeline.search.evaluators.ray_tasks import RayTasks, here
from pipeline.search.evaluators.workers import InProcess, parse_pool
from pipeline.search.loop import search
from pipeline.spaces.base import Architecture
from tests.pipeline.search.evaluators.score_processes import NumberEvaluator
from tests.pipeline.search.test_loop import evolution
from tests.places import ROOT

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.slow

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@dataclass(frozen=True)
class SlowEvaluator:
    """Tells where it evaluates, and takes its time."""

    folder: str
    seconds: float

    def evaluate(self, architecture: Architecture) -> Score:
        node = ray.get_runtime_context().get_node_id()
        (Path(self.folder) / f"{architecture.identity}-{node}").touch()
        time.sleep(self.seconds)
        return NumberEvaluator().evaluate(architecture)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """The client server of a head begins to listen some time after the head."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        time.sleep(0.2)
    pytest.fail("the client server does not listen")


CLIENT_PORT = free_port()


@pytest.fixture(name="cluster", scope="module")
def _cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    head = NODE | {"ray_client_server_port": CLIENT_PORT}
    with pytest.MonkeyPatch.context() as patched:
        # What a node must have installed, the evaluators of these tests included.
        patched.setenv("PYTHONPATH", str(ROOT))
        cluster = Cluster(initialize_head=True, head_node_args=head)
        wait_for(CLIENT_PORT)
        patched.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
    ray.shutdown()
    cluster.shutdown()


def on_ray(evaluator: Any) -> RayTasks:
    return RayTasks(evaluator, None)


def test_a_search_on_a_cluster_ends_as_in_one_process_though_a_node_is_killed(
    cluster: Any, tmp_path: Path
) -> None:
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    before = signal.getsignal(signal.SIGTERM)
    alone = search(evolution(), NumberEvaluator(), 10, tmp_path / "alone.jsonl", ahead=4)
    seen = tmp_path / "seen"
    seen.mkdir()

    def kill_once(done: int, total: int, candidate: Any) -> None:
        if done == 3:
            cluster.remove_node(second, allow_graceful=False)

    evaluator = SlowEvaluator(str(seen), 0.3)
    found = search(evolution(), evaluator, 10, tmp_path / "j.jsonl", kill_once, pool=on_ray, ahead=4)
    assert found == alone
    assert (tmp_path / "alone.jsonl").read_bytes() == (tmp_path / "j.jsonl").read_bytes()
    assert len({path.name.partition("-")[2] for path in seen.iterdir()}) == 2
    assert signal.getsignal(signal.SIGTERM) == before
    assert not ray.is_initialized()


def test_a_candidate_that_ends_its_process_has_failed_and_the_others_are_evaluated(
    cluster: Any, tmp_path: Path
) -> None:
    asked = [
        c.architecture.identity for c in search(evolution(), NumberEvaluator(), 4, tmp_path / "a", ahead=4)
    ]
    deadly = NumberEvaluator(frozenset({asked[1]}))
    found = search(evolution(), deadly, 4, tmp_path / "b", pool=on_ray, ahead=4)
    assert [candidate.architecture.identity for candidate in found] == asked
    assert [number for number, candidate in enumerate(found) if candidate.failure] == [1]
    assert "was lost 2 times" in (found[1].failure or "")


@contextmanager
def failing(times: int) -> Iterator[None]:
    """A client server that fails so often before it answers."""
    from ray.util.client.worker import Worker

    answers: list[Any] = [ConnectionAbortedError("the server's process ended")] * times
    answer = Worker._server_init

    def flaky(*arguments: Any) -> Any:
        if answers:
            raise answers.pop()
        return answer(*arguments)

    with patch.object(Worker, "_server_init", flaky):
        yield


def far(evaluator: Any) -> RayTasks:
    return RayTasks(evaluator, f"ray://127.0.0.1:{CLIENT_PORT}")


def test_a_cluster_is_reached_by_its_client_server_which_is_asked_once_more(
    cluster: Any, tmp_path: Path
) -> None:
    alone = search(evolution(), NumberEvaluator(), 3, tmp_path / "a", ahead=2)
    with failing(1):
        assert search(evolution(), NumberEvaluator(), 3, tmp_path / "b", pool=far, ahead=2) == alone
    assert not ray.is_initialized()


def test_a_client_server_that_fails_twice_is_named_and_ray_can_be_used_again(cluster: Any) -> None:
    with failing(2), pytest.raises(ExecutorError, match="the server's process ended"):
        far(NumberEvaluator())
    assert not ray.is_initialized()
    # The next one is no client of that server: it reaches the cluster, and is refused for what it asks.
    with pytest.raises(ExecutorError, match="no node of the Ray cluster has 1 CPUs and 1 GPUs"):
        RayTasks(NumberEvaluator(), None, gpus=1)
    assert not ray.is_initialized()


def test_a_node_with_another_lathe_is_named(cluster: Any, tmp_path: Path) -> None:
    with (
        patch.object(ray_tasks, "here", lambda: "Lathe 0.0.1 on Python 3.11"),
        pytest.raises(ExecutorError, match=r"runs with Lathe 0\.0\.1") as caught,
    ):
        search(evolution(), NumberEvaluator(), 2, tmp_path / "j", pool=on_ray, ahead=2)
    assert here() in str(caught.value)
    assert caught.value.exit_code == 16


@pytest.mark.parametrize("named_by_environment", [False, True])
def test_a_cluster_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, named_by_environment: bool
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    address = None if named_by_environment else "ray://127.0.0.1:9"
    with pytest.raises(ExecutorError, match=r"Ray cannot be used at .*127\.0\.0\.1:9") as caught:
        RayTasks(NumberEvaluator(), address)
    assert "refused" in str(caught.value)
    assert not ray.is_initialized()


def test_executors_of_ray_are_known_by_their_words() -> None:
    for text in ("ray", "ray://head:10001"):
        _, at_a_time = parse_pool(text)
        assert at_a_time is None
    for text in ("ray:", "ray://", "ray://head", "ray://user@head:1", "rays", "ray://a/b:1"):
        with pytest.raises(ValueError, match="ray://HOST:PORT"):
            parse_pool(text)
    assert parse_pool("in-process") == (InProcess, 1)
