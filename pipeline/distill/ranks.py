"""A training by several processes: started here, told what to train, and waited for."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import nn

from devices.host import check_interruption, end_with_parent, temporary_folder
from pipeline.data.base import Dataset, Split
from pipeline.data.carrying import carried, opened
from pipeline.distill.divergence import TrainingDiverged
from pipeline.distill.settings import EpochRecord, TrainingSettings
from pipeline.distill.targets import SoftTargets
from pipeline.distill.team import joined
from pipeline.errors import VerificationError

# A forked child would inherit torch's threads, and the state of a GPU, in an unknown state.
_SPAWN = get_context("spawn")


@dataclass(frozen=True, eq=False)
class Training:
    """What is trained, and how; it travels to each process by pickle.

    Attributes:
        model: on the CPU.
        dataset: images in mapped files travel by their path.
        settings: of the whole, ``processes`` included.
        seed: as of ``fit``.
        targets: what the teacher says.
        checkpoint: as of ``fit``.
        goal: as of ``fit``.
    """

    model: nn.Module
    dataset: Dataset
    settings: TrainingSettings
    seed: int
    targets: SoftTargets | None
    checkpoint: Path | None
    goal: float | None


def trained_together(
    training: Training, on_epoch: Callable[[EpochRecord], None], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Train in ``settings.processes`` processes; returns what ``fit`` keeps of it.

    Args:
        training: to do.
        on_epoch: called after every epoch.
        tell: called with lines.

    Raises:
        TrainingDiverged: the loss is not finite.
        VerificationError: a process was ended, or something cannot be sent to it.
    """
    count = training.settings.processes
    with temporary_folder("training") as folder:
        sent = _sendable(training)
        pipes = [_SPAWN.Pipe(duplex=False) for _ in range(count)]
        processes = [
            _SPAWN.Process(target=_run, args=(sender, rank, folder, sent), name=f"training {rank}")
            for rank, (_, sender) in enumerate(pipes)
        ]
        with _started_apart():
            for process, (_, sender) in zip(processes, pipes, strict=True):
                process.start()
                sender.close()
        try:
            _listen([receiver for receiver, _ in pipes], on_epoch, tell)
        finally:
            _end(processes)
        result: dict[str, Any] = torch.load(folder / _RESULT, map_location="cpu", weights_only=True)
        return result


_RESULT = "result.pt"
_LOGGING = "TORCH_CPP_LOG_LEVEL"


@contextmanager
def _started_apart() -> Iterator[None]:
    """Ctrl-C does not reach the processes that are started inside, and torch tells only of errors in them."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    level = os.environ.get(_LOGGING)
    os.environ[_LOGGING] = "ERROR"
    try:
        yield
    finally:
        os.environ.pop(_LOGGING)
        if level is not None:
            os.environ[_LOGGING] = level
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _sendable(training: Training) -> bytes:
    dataset = _with_images(training.dataset, carried)
    try:
        return pickle.dumps(replace(training, dataset=dataset))
    except Exception as error:  # pickle raises whatever an object's own code does
        raise VerificationError(
            "the training cannot be shared out to several processes",
            why=f"the network or its teacher cannot be sent to another process: {error}",
            fix="leave out 'processes'",
        ) from error


def _with_images(dataset: Dataset, change: Callable[[Split], Split]) -> Dataset:
    return replace(
        dataset,
        train=change(dataset.train),
        validation=change(dataset.validation),
        test=change(dataset.test),
    )


def _listen(
    receivers: list[Connection], on_epoch: Callable[[EpochRecord], None], tell: Callable[[str], None]
) -> None:
    """Until every process says that it is done, or one of them does not."""
    waiting = list(receivers)
    while waiting:
        for receiver in wait(waiting):
            assert isinstance(receiver, Connection)
            try:
                kind, said = receiver.recv()
            except EOFError:
                check_interruption()
                raise VerificationError(
                    "a process of the training was ended from outside",
                    fix="see that there is memory left, or lower 'processes', and run the same command "
                    "again: it continues from its last epoch",
                ) from None
            match kind:
                case "epoch":
                    on_epoch(EpochRecord(**said))
                case "line":
                    tell(said)
                case "diverged":
                    raise TrainingDiverged(said)
                case "failed":
                    raise said
                case _:
                    waiting.remove(receiver)


def _end(processes: Sequence[BaseProcess]) -> None:
    """At once where one of them is not done: the others wait for it."""
    for process in processes:
        if process.is_alive():
            process.join(1)
        if process.is_alive():
            process.kill()
        process.join()


def _run(sender: Connection, rank: int, folder: Path, sent: bytes) -> None:
    """One process, from its start to its end."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        training: Training = pickle.loads(sent)
        dataset = _with_images(training.dataset, opened)
        _train(replace(training, dataset=dataset), sender, rank, folder)
        sender.send(("done", None))
    except TrainingDiverged as error:
        sender.send(("diverged", str(error)))
    except Exception as error:  # whatever it is, it is raised where the training was asked for
        sender.send(("failed", error))


def _train(training: Training, sender: Connection, rank: int, folder: Path) -> None:
    from pipeline.distill.training import save_atomically, train_here

    count = training.settings.processes
    if training.settings.threads is None:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    with joined(rank, count, folder / "meeting") as team:
        progress = train_here(
            training.model,
            training.dataset,
            training.settings,
            seed=training.seed,
            targets=training.targets,
            checkpoint=training.checkpoint,
            on_epoch=lambda done, total, record: sender.send(("epoch", asdict(record))),
            tell=lambda line: sender.send(("line", line)),
            goal=training.goal,
            team=team,
        )
        if team.leads:
            save_atomically(progress.kept(), folder / _RESULT)
