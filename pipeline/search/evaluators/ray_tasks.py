"""Evaluates candidates as tasks of Ray (https://docs.ray.io): on this machine, or on a cluster's nodes."""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import threading
from concurrent.futures import Future
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from devices.installing import how_to_install
from pipeline.errors import ExecutorError
from pipeline.search.base import Evaluator
from pipeline.search.evaluators.workers import evaluated
from pipeline.search.journal import Candidate
from pipeline.spaces.base import Architecture

RETRIES = 1
"""How often a candidate is begun again whose process or node was lost."""
_ANSWERS_WITHIN_S = 10
_CONNECTIONS = 2
"""The process that a client server starts for each client ends at once now and then."""


class RayTasks:
    """Evaluates each architecture in a task of Ray.

    The evaluator travels to each node once and is unpacked once in each process there. A candidate whose
    process or node is lost is begun ``RETRIES`` times more, then it has failed.

    Args:
        evaluator: travels by pickle, so every node needs this version of Lathe.
        address: ``ray://HOST:PORT`` of a cluster's client server. Without it: the cluster that
            ``RAY_ADDRESS`` names or of which this machine is a node, else Ray is started on this machine.
        cpus: of a task; torch has one thread there, unless the evaluator asks for more.
        gpus: of a task; without any, none is visible to it.

    Raises:
        ExecutorError: Ray is not installed, the cluster does not answer, or no node has that much.
    """

    def __init__(self, evaluator: Evaluator, address: str | None, cpus: float = 1, gpus: float = 0) -> None:
        self._ray, self._began = _connected(address)
        try:
            _require_node(self._ray, cpus, gpus)
            self._task = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_evaluate)
            self._evaluator = self._ray.put(evaluator)
        except BaseException:
            self._disconnect()
            raise
        self._running: list[Any] = []

    def submit(self, architecture: Architecture) -> Future[Candidate]:
        """Begin to evaluate one, when a node has room.

        Raises:
            ExecutorError: by the future: the cluster is lost, or a node has another Lathe.
        """
        # In a list, Ray hands on the reference in place of what it refers to.
        reference = self._task.remote([self._evaluator], here(), architecture)
        self._running.append(reference)
        return _told(self._ray, reference, architecture)

    def close(self) -> None:
        """Give up what is not evaluated yet; Ray ends if it began here."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._began:
            self._ray.shutdown()


def here() -> str:
    """What a node must have too."""
    try:
        lathe = version("lathe-deploy")
    except PackageNotFoundError:
        lathe = "unknown"
    return f"Lathe {lathe} on Python {platform.python_version()}"


def require_cluster(address: str | None) -> Any:
    """The module of Ray, if it can be imported and something answers where the cluster would be.

    Args:
        address: as of ``RayTasks``.

    Raises:
        ExecutorError: one of the two does not hold.
    """
    # Ray would report how it is used over the network.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ExecutorError(
            "search.executor asks for Ray, which cannot be imported",
            why=str(error),
            fix=how_to_install("ray"),
        ) from error
    host, _, port = _where(address).removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        # Ray itself would try for minutes.
        try:
            socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN_S).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, error) from error
    return ray


def _where(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "this machine"


def _connected(address: str | None) -> tuple[Any, bool]:
    """The module of Ray, connected, and whether that began here."""
    ray = require_cluster(address)
    if ray.is_initialized():
        return ray, False
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if in_main else None
    try:
        _connect(ray, address)
    except Exception as error:  # Ray raises many kinds for a cluster that does not fit.
        raise _unreachable(address, error) from error
    finally:
        if handler is not None:
            # Ray puts its own in place of the one that keeps what was finished.
            signal.signal(signal.SIGTERM, handler)
    return ray, True


def _connect(ray: Any, address: str | None) -> None:
    # Ray would show what tasks print.
    options: dict[str, Any] = {} if address else {"include_dashboard": False, "log_to_driver": False}
    for left in reversed(range(_CONNECTIONS)):
        try:
            ray.init(address, logging_level=logging.ERROR, configure_logging=False, **options)
        except Exception as error:
            ray.shutdown()  # Else Ray takes itself for a client of that server from now on.
            if not (left and isinstance(error, ConnectionError)):
                raise
        else:
            return


def _unreachable(address: str | None, error: Exception) -> ExecutorError:
    return ExecutorError(
        f"Ray cannot be used at {_where(address)}",
        why=f"{type(error).__name__}: {error}",
        fix="see that the cluster runs (ray status on its head), that the port is that of its client server "
        "(10001 by default), and that its Ray and Python are those of this machine",
    )


def _require_node(ray: Any, cpus: float, gpus: float) -> None:
    """Ray would wait for such a node for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        has = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ExecutorError(
            f"no node of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs for a candidate",
            why=f"its nodes have {has or 'nothing'}",
            fix="lower search.cpus or search.gpus, or add such a node first",
        )


def _told(ray: Any, reference: Any, architecture: Architecture) -> Future[Candidate]:
    """The candidate, failed if its process or node was lost too often."""
    future: Future[Candidate] = Future()
    lost = (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.ObjectLostError,
    )

    def tell(done: Future[Any]) -> None:
        if future.cancelled():
            return
        if done.cancelled() or isinstance(error := done.exception(), ray.exceptions.TaskCancelledError):
            future.cancel()
        elif error is None:
            future.set_result(done.result())
        elif isinstance(error, lost):
            reason = str(error).strip().splitlines()[0]
            failure = f"the process or node that evaluated it was lost {RETRIES + 1} times: {reason}"
            future.set_result(Candidate(architecture, failure=failure))
        else:
            cause = getattr(error, "cause", None)
            future.set_exception(cause if isinstance(cause, ExecutorError) else _unusable(error))

    reference.future().add_done_callback(tell)
    return future


def _unusable(error: BaseException) -> ExecutorError:
    return ExecutorError(
        "the Ray cluster could not evaluate a candidate",
        why=str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__,
        fix="see that every node has this Lathe with its packages and that the cluster runs, then give the "
        "same command again: what was evaluated is kept",
    )


_known: tuple[Any, Evaluator] | None = None


def _evaluate(evaluator: list[Any], caller: str, architecture: Architecture) -> Candidate:
    """Run on a node: evaluate one, by the evaluator that was unpacked here before if it is the same."""
    if caller != here():
        raise ExecutorError(
            f"the node {platform.node()} has {here()}, and the search runs with {caller}",
            why="scores of different versions do not compare",
            fix="install the same version on every node, then give the same command again",
        )
    import ray
    import torch

    global _known  # noqa: PLW0603 (a process has one evaluator at a time)
    torch.set_num_threads(1)
    (reference,) = evaluator
    if _known is None or _known[0] != reference:
        _known = (reference, ray.get(reference))
    return evaluated(_known[1], architecture)
