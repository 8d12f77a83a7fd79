"""How fast model files are: ``profile`` and ``compare``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from devices.measurement import InputUse, Interval, Ratio
from lathe.result import Result, Rows, reporter

if TYPE_CHECKING:
    from devices.inputs import Given
    from devices.measurement import Outcome
    from pipeline.cli.profile.keeping import Keeper

TIMEOUT_S = 600.0


@dataclass(frozen=True, repr=False)
class Profile(Result):
    """The measured latency of one model on one target.

    Attributes:
        model: path of the file, as it was given.
        target: where it ran.
        latency: headline with its interval over fresh processes, nanoseconds; ``None`` if it did not run.
        latency_on_device: the same with the interval that holds at another time too, on this machine.
        verdict: how far the measurement may be trusted: ``valid``, ``degraded`` or ``invalid``; ``failed``
            where there is none.
        reasons: for the verdict, in words.
        inputs: shape and values of each input, for which the latency holds.
    """

    model: str
    target: str
    latency: Interval | None
    latency_on_device: Interval | None
    verdict: str
    reasons: tuple[str, ...]
    inputs: tuple[InputUse, ...] = ()

    @property
    def assumed(self) -> tuple[str, ...]:
        """Sizes that the model leaves open and that nobody gave, in words."""
        return tuple(each.assumption for each in self.inputs if each.assumed)

    def _title(self) -> str:
        return f"{self.model} on {self.target}"

    def _rows(self) -> Rows:
        latency = _words(self.latency, self.latency_on_device)
        return [
            ("latency", latency),
            *(("inputs", str(each)) for each in self.inputs),
            *(("NOTE", each) for each in self.assumed),
            ("verdict", self.verdict),
            *(("", each) for each in self.reasons),
        ]


@dataclass(frozen=True, repr=False)
class ModelComparison(Result):
    """Two models that ran in the same launches.

    Attributes:
        models: paths of the files, as they were given.
        target: where they ran.
        latencies: of each, nanoseconds; ``None`` for one that did not run.
        latencies_on_device: the same with intervals that hold at another time too, on this machine.
        ratio: the second's latency over the first's; ``None`` if one did not run.
        finding: ``faster``, ``slower``, ``no-difference-shown`` or ``cannot-tell``, said of the first.
        obstacles: why nothing can be said; empty where something can.
    """

    models: tuple[str, str]
    target: str
    latencies: tuple[Interval | None, Interval | None]
    latencies_on_device: tuple[Interval | None, Interval | None]
    ratio: Ratio | None
    finding: str
    obstacles: tuple[str, ...]

    def _title(self) -> str:
        return f"{self.models[0]} and {self.models[1]} on {self.target}: {self.finding}"

    def _rows(self) -> Rows:
        each = zip(self.models, self.latencies, self.latencies_on_device, strict=True)
        rows = [(model, _words(narrow, wide)) for model, narrow, wide in each]
        if self.ratio is not None:
            rows.append(("second / first", str(self.ratio)))
        return [*rows, *(("obstacle", each) for each in self.obstacles)]


def profile(
    model: str | PathLike[str],
    target: str,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    fills: Mapping[str, str] | None = None,
    inputs: Mapping[str, str | PathLike[str]] | None = None,
    signature: str = "",
    launches: int | None = None,
    timeout_s: float = TIMEOUT_S,
    trust: bool = False,
    db: str | None = None,
    progress: bool = False,
) -> Profile:
    """Measure the latency of a model file on a target.

    Args:
        model: a file that the target's runtime loads, such as ``.onnx`` or ``.tflite``.
        target: as ``host/onnxruntime:fp32@1``.
        shapes: sizes of inputs by name; those that the model leaves open are 1 unless given.
        fills: values of inputs by name: ``zeros``, ``ones``, ``random``, ``range:LOW,HIGH`` or
            ``value:NUMBER``.
        inputs: files that values are taken from, by name of the input.
        signature: of a ``.tflite`` file with several.
        launches: fresh processes at least; as many as the protocol has by default.
        timeout_s: seconds that the model may take in one launch.
        trust: load a file that is a program (``.pt2``, ``.engine``), now and later while its content is the
            same.
        db: latency database, a file or an SQLAlchemy URL, which keeps the measurement and knows how the
            machine changes; the user's own if None.
        progress: show it on standard error.

    Raises:
        MeasurementError: there is no such file, it is a program that you do not trust, or no launch could be
            made.
        TargetError: the target is unknown or cannot be reached, or its runtime is not installed.
        StoreError: the database cannot be opened, read or written.
    """
    from devices.measurement import Measurement, MeasuringProtocol
    from devices.measuring import Job, measure
    from devices.result_file import Entry
    from devices.target import Target
    from devices.trust import trusted_files
    from pipeline.cli.profile.documents import entry_json
    from pipeline.cli.profile.keeping import keeper

    path, where, protocol = _file(model), Target.parse(target), MeasuringProtocol()
    if launches is not None:
        protocol = replace(protocol, launches=launches, max_launches=3 * launches)
    with (
        trusted_files([path], trusting=trust) as files,
        _given(shapes, fills, inputs, signature) as given,
        reporter(progress).task(f"timing on {where}", "launches") as task,
    ):
        found = measure(
            [Job(str(path), files[path], given)],
            where,
            protocol,
            on_progress=task,
            on_state=task.say,
            job_timeout_s=timeout_s,
        )
    (outcome,) = found.values()
    verdict, reasons = _verdict(outcome)
    with keeper(db) as kept:
        kept.keep(str(path), signature, outcome)
        document = entry_json(Entry((str(path),), outcome), kept.between)
        wide = _on_device(outcome, kept)
    used = outcome.inputs if isinstance(outcome, Measurement) else ()
    return Profile(str(path), str(where), _latency(outcome), wide, verdict, reasons, used, _document=document)


def compare(
    first: str | PathLike[str],
    second: str | PathLike[str],
    target: str,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    fills: Mapping[str, str] | None = None,
    inputs: Mapping[str, str | PathLike[str]] | None = None,
    signature: str = "",
    launches: int | None = None,
    timeout_s: float = TIMEOUT_S,
    trust: bool = False,
    db: str | None = None,
    progress: bool = False,
) -> ModelComparison:
    """Measure two model files side by side on one target, with arguments and errors as ``profile``."""
    from devices.measurement import MeasuringProtocol
    from devices.measuring import LAUNCHES
    from devices.measuring import compare as measured
    from devices.result_file import Entry
    from devices.target import Target
    from devices.trust import trusted_files
    from pipeline.cli.profile.documents import entry_json
    from pipeline.cli.profile.keeping import keeper

    paths, where = (_file(first), _file(second)), Target.parse(target)
    count = launches or LAUNCHES
    protocol = replace(MeasuringProtocol(), launches=count, max_launches=3 * count)
    with (
        trusted_files(paths, trusting=trust) as files,
        _given(shapes, fills, inputs, signature) as given,
        reporter(progress).task(f"comparing on {where}", "launches") as task,
    ):
        found = measured(
            files[paths[0]],
            files[paths[1]],
            where,
            protocol,
            given=given,
            on_progress=task,
            on_state=task.say,
            job_timeout_s=timeout_s,
        )
    models = str(paths[0]), str(paths[1])
    with keeper(db) as kept:
        for each, outcome in zip(models, (found.first, found.second), strict=True):
            kept.keep(each, signature, outcome)
        document = entry_json(Entry(models, found), kept.between)
        wide = _on_device(found.first, kept), _on_device(found.second, kept)
    return ModelComparison(
        models,
        str(where),
        (_latency(found.first), _latency(found.second)),
        wide,
        found.ratio,
        str(found.finding.value),
        found.obstacles,
        _document=document,
    )


@contextmanager
def _given(
    shapes: Mapping[str, Sequence[int]] | None,
    fills: Mapping[str, str] | None,
    inputs: Mapping[str, str | PathLike[str]] | None,
    signature: str,
) -> Iterator[Given]:
    """What a model is given; files are there until the block ends."""
    from devices.host import temporary_folder
    from devices.inputs import given_from

    with temporary_folder("inputs") as folder:
        (given,) = given_from(
            [f"{name}={','.join(map(str, sizes))}" for name, sizes in (shapes or {}).items()],
            [f"{name}={values}" for name, values in (fills or {}).items()],
            [f"{name}={file}" for name, file in (inputs or {}).items()],
            signature,
            folder,
            names=inputs or (),
        )
        yield given


def _file(model: str | PathLike[str]) -> Path:
    from devices.errors import MeasurementError

    path = Path(model)
    if not path.is_file():
        raise MeasurementError(f"there is no file {str(path)!r}", fix="check the name")
    return path


def _latency(outcome: Outcome) -> Interval | None:
    from devices.measurement import Measurement

    return outcome.latency if isinstance(outcome, Measurement) else None


def _on_device(outcome: Outcome, kept: Keeper) -> Interval | None:
    from devices.measurement import Measurement

    return kept.between(outcome).around(outcome.latency) if isinstance(outcome, Measurement) else None


def _words(narrow: Interval | None, wide: Interval | None) -> str:
    if narrow is None or wide is None:
        return "did not run"
    return f"{narrow} measured here and now, {wide.ends} on this machine"


def _verdict(outcome: Outcome) -> tuple[str, tuple[str, ...]]:
    from devices.measurement import Measurement

    if isinstance(outcome, Measurement):
        return outcome.verdict.value, tuple(reason.detail for reason in outcome.reasons)
    return "failed", (outcome.reason.detail,)
