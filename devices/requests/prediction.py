"""Runs an artifact on its target over real inputs, for accuracy and parity."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
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
from devices.runtimes.base import Call, Predict
from devices.target import Target
from devices.untrusted import array_from, npy_header, regular_size
from devices.words import cause_of

DEFAULT_TIMEOUT_S = 600.0
FIRST_ROWS = 256
"""So many inputs run in the first process, and more in the next as long as that leaves time enough."""
GROWTH = 4
MOST_PIECE_BYTES = 256 << 20
"""Of the inputs of one process, unless a single row has more."""
MOST_OUTPUT_BYTES = 4 << 30
"""Of all outputs for all inputs."""


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
        timeout_s: the longest that a piece of the inputs may take.
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
    """Outputs of the artifact for every input, run one by one (batch 1) in fresh processes on the target.

    The inputs go there in pieces, so that how long they may take grows with their number. The first has
    ``FIRST_ROWS``; where that takes little of its time, the next are larger.

    Args:
        artifact: a file that the target's runtime loads.
        inputs: ``(N, ...)`` for each input of the artifact, in its order, layout and type.
        target: where to run.
        timeout_s: the longest that a piece may take.
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
    rows = [each[:count] for each in inputs]
    row_bytes = sum(each[0].nbytes for each in rows)
    found: list[tuple[NDArray[np.float32], ...]] = []
    with (
        connected(target.device, connection) as device,
        device_lock(target.device, device, what=f"outputs of {target}"),
        temporary_folder("predict") as folder,
    ):
        pieces = _Pieces(artifact, target, call_to(target, device, timeout_s=timeout_s), folder, count)
        done, size = 0, FIRST_ROWS
        while done < count:
            size = max(1, min(size, MOST_PIECE_BYTES // max(1, row_bytes)))
            began_s = time.monotonic()
            found.append(pieces.run([each[done : done + size] for each in rows]))
            done += size
            if 2 * GROWTH * (time.monotonic() - began_s) < timeout_s:
                size *= GROWTH
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


@dataclass
class _Pieces:
    """Runs some rows of inputs after the others.

    Attributes:
        count: all rows that there are.
        sizes: values of each output, once they are known.
    """

    artifact: Path
    target: Target
    call: Call
    folder: Path
    count: int
    sizes: Sequence[int] = ()

    def run(self, rows: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float32], ...]:
        """Outputs for some rows.

        Raises:
            MeasurementError: as ``predict_all``.
        """
        paths = tuple(self.folder / f"inputs-{number}.npy" for number in range(len(rows)))
        for path, values in zip(paths, rows, strict=True):
            np.save(path, np.ascontiguousarray(values), allow_pickle=False)
        outputs = self.folder / "outputs.npy"
        request = Predict(self.artifact, paths, outputs)
        reply = runtime_of(self.target).exchange(self.call, request)
        for failure in reply.all("failed"):
            raise self._failure(failure["code"], failure["detail"])
        for answer in reply.all("outputs"):
            self._agree(answer["sizes"])
            return self._outputs(outputs, len(rows[0]))
        code, detail = reply.end
        if code == "timeout":
            detail = (
                f"{len(rows[0])} of {self.count} inputs took more than {self.call.timeout_s:g} s; {detail}"
            )
        raise self._failure(code, detail)

    def _failure(self, code: str, detail: str) -> MeasurementError:
        kind = PassingMeasurementError if code in PASSING_CODES else MeasurementError
        return kind(
            f"{self.artifact.name!r} could not be run on '{self.target}' ({code})",
            why=detail,
            fix="see what keeps the device busy, or choose a faster one" if code == "timeout" else "",
        )

    def _agree(self, sizes: Sequence[int]) -> None:
        """Hold the sizes of outputs against those of earlier rows, and against the limit for all rows."""
        self.sizes = self.sizes or sizes
        size_bytes = np.dtype(np.float32).itemsize * self.count * sum(sizes)
        if not sizes or sizes != self.sizes or size_bytes > MOST_OUTPUT_BYTES:
            raise MeasurementError(
                f"the outputs of {self._what} cannot be taken",
                why=f"they are told to have {sizes} values, {size_bytes:,} bytes for {self.count} inputs; "
                f"all must have as many, and at most {MOST_OUTPUT_BYTES:,} bytes",
            )

    def _outputs(self, path: Path, rows: int) -> tuple[NDArray[np.float32], ...]:
        """What the device computed: a row of numbers for each row of inputs, of all outputs."""
        expected = (rows, sum(self.sizes))
        try:
            with path.open("rb") as stream:
                header = npy_header(stream, regular_size(path))
            if header.dtype != np.float32 or header.shape != expected:
                raise ValueError(f"they have type {header.dtype} and shape {header.shape}, not {expected}")
            values = array_from(path)
        except (OSError, ValueError) as error:
            raise MeasurementError(
                f"the outputs of {self._what} cannot be read", why=cause_of(error)
            ) from error
        return tuple(np.split(values, np.cumsum(self.sizes)[:-1], axis=1))

    @property
    def _what(self) -> str:
        return f"{self.artifact.name!r} on '{self.target}'"
