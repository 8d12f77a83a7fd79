"""Runs an artifact on its target over real inputs, for accuracy and parity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.connections import Connection
from devices.errors import LatheError, MeasurementError, PassingMeasurementError, TargetError
from devices.host import temporary_folder
from devices.inventory.devices import HOST, call_to, connected, runtime_of
from devices.locking.lock import device_lock
from devices.measurement import PASSING_CODES
from devices.measuring.probing import probe
from devices.runtimes import known_runtimes
from devices.runtimes.base import Predict
from devices.target import Target
from devices.untrusted import array_from
from devices.words import cause_of

DEFAULT_TIMEOUT_S = 600.0


def outputs_target(target: Target, suffix: str) -> Target:
    """Where the outputs of a file that runs on ``target`` are taken: there, or else on this machine.

    A tool that makes up its inputs gives none, as on every phone. Then the same file is run by a runtime of
    this machine that loads it, that of the same name first. Its arithmetic is another processor's, which
    whoever shows the outputs has to say.

    Args:
        target: where the file runs.
        suffix: of the file, such as ``.onnx``.

    Raises:
        TargetError: ``target`` is wrong, or gives no outputs, and no runtime here loads such a file.
    """
    runtime = runtime_of(target)
    support = runtime.capabilities(target).outputs
    if support:
        return target
    tried = []
    for other in sorted(known_runtimes(), key=lambda other: other.name != runtime.name):
        if not other.needs_python or suffix not in other.suffixes or target.precision not in other.precisions:
            continue
        here = Target(HOST.name, other.name, target.precision)
        try:
            probe(here)
        except LatheError as error:
            tried.append(f"{here}: {error.why or error.what}")
            continue
        return here
    raise TargetError(
        f"accuracy cannot be taken for '{target}'",
        why="; ".join([support.note, *tried, f"no runtime of this machine runs {suffix} files"]),
        fix=f'install one here, for example pip install -e ".[{runtime.name}]" in a checkout of Lathe',
    )


def predict(
    artifact: Path,
    inputs: NDArray[np.float32],
    target: Target,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    connection: Connection | None = None,
) -> NDArray[np.float32]:
    """The first output of an artifact with one input, ``(N, values)`` float32; else as ``predict_all``.

    Args:
        artifact: a file that the target's runtime loads.
        inputs: ``(N, ...)`` float32, preprocessed and in the artifact's own layout.
        target: where to run.
        timeout_s: the longest that all inputs together may take.
        connection: an open connection to use instead of a new one to the target's device; it stays open.
    """
    rows = np.asarray(inputs, np.float32)
    return predict_all(artifact, [rows], target, timeout_s=timeout_s, connection=connection)[0]


def predict_all(
    artifact: Path,
    inputs: Sequence[NDArray[Any]],
    target: Target,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    connection: Connection | None = None,
) -> tuple[NDArray[np.float32], ...]:
    """Outputs of the artifact for every input, run one by one (batch 1) in a fresh process on the target.

    Args:
        artifact: a file that the target's runtime loads.
        inputs: ``(N, ...)`` for each input of the artifact, in its order, layout and type.
        target: where to run.
        timeout_s: the longest that all inputs together may take.
        connection: an open connection to use instead of a new one to the target's device; it stays open.

    Returns:
        ``(N, values)`` float32 for each output of the artifact, flattened per input.

    Raises:
        TargetError: device or runtime unknown, runtime not installed, precision or option unsupported.
        PassingMeasurementError: it took too long, lacked memory, or its device went away.
        MeasurementError: the target gives no outputs (see ``outputs_target``), or the artifact cannot be
            loaded or run, or takes other inputs.
    """
    runtime = runtime_of(target)
    if not (support := runtime.capabilities(target).outputs):
        raise MeasurementError(
            f"'{target}' gives no outputs for given inputs",
            why=support.note,
            fix="take the outputs on a target with Python, without +native",
        )
    count = min((len(each) for each in inputs), default=0)
    if not count:
        raise MeasurementError(f"there are no inputs to run {artifact.name!r} on")
    with (
        connected(target.device, connection) as device,
        device_lock(target.device, device, what=f"outputs of {target}"),
        temporary_folder("predict") as folder,
    ):
        rows = tuple(folder / f"inputs-{number}.npy" for number in range(len(inputs)))
        for path, values in zip(rows, inputs, strict=True):
            np.save(path, np.ascontiguousarray(values), allow_pickle=False)
        outputs = folder / "outputs.npy"
        call = call_to(target, device, timeout_s=timeout_s)
        reply = runtime.exchange(call, Predict(artifact, rows, outputs))
        for failure in reply.all("failed"):
            raise _failure(artifact, target, failure["code"], failure["detail"])
        for answer in reply.all("outputs"):
            return _outputs(outputs, count, answer["sizes"], f"{artifact.name!r} on '{target}'")
        raise _failure(artifact, target, *reply.end)


def _failure(artifact: Path, target: Target, code: str, detail: str) -> MeasurementError:
    kind = PassingMeasurementError if code in PASSING_CODES else MeasurementError
    return kind(f"{artifact.name!r} could not be run on '{target}' ({code})", why=detail)


def _outputs(path: Path, rows: int, sizes: Sequence[int], what: str) -> tuple[NDArray[np.float32], ...]:
    """What the device says it computed: a row of numbers for each row of inputs, of all outputs."""
    try:
        values = array_from(path)
    except (OSError, ValueError) as error:
        raise MeasurementError(f"the outputs of {what} cannot be read", why=cause_of(error)) from error
    if values.dtype != np.float32 or values.shape != (rows, sum(sizes)) or not sizes:
        raise MeasurementError(
            f"the outputs of {what} are not those of {rows} inputs",
            why=f"they have type {values.dtype} and shape {values.shape}",
        )
    return tuple(np.split(values, np.cumsum(sizes)[:-1], axis=1))
