from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from devices.errors import MeasurementError
from devices.measurement.measurement import (
    PASSING_CODES,
    DeviceIdentity,
    Measurement,
    MeasurementFailure,
    Outcome,
    Reason,
    RuntimeIdentity,
    Verdict,
)
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring.batch import Job
from devices.measuring.busy import OtherLoad
from devices.target import Target
from latency_db.store.keys import Key, Workload
from latency_db.store.store import Store, open_store
from latency_db.tables import outcomes as outcomes_module
from latency_db.tables import quiet
from latency_db.tables.outcomes import (
    BATCH,
    BATCH_S,
    FIRST_BATCH,
    REPEATS,
    SMALLEST_BATCH,
    measured,
    next_size,
    stored,
)
from tests.latency_db.measurement_samples import (
    DEVICE,
    PROTOCOL,
    RUNTIME,
    block,
    failure,
    key_of,
    measurement,
)

TARGET = Target("host", "onnxruntime")
ADAPTED_NS = 31_000_000
FOLLOWED = replace(PROTOCOL, min_ns=ADAPTED_NS)
QUIET_MACHINE = OtherLoad(2, 0.0)
BUSY_MACHINE = OtherLoad(2, 1.5, processes=(("ffmpeg", 1.4),))


def followed(outcome: Outcome) -> Outcome:
    """The outcome as it is under the protocol that the target follows."""
    return replace(outcome, protocol=FOLLOWED) if isinstance(outcome, Measurement) else outcome


def key_followed(workload: Workload) -> Key:
    return Key.of(workload, RUNTIME, DEVICE, FOLLOWED)


class Bench:
    """An exporter and a measurer that stand for a toolchain and a device, and count what is asked of them."""

    def __init__(self, folder: Path, outcomes: Mapping[str, Sequence[Outcome]] | None = None) -> None:
        self.folder = folder
        self.outcomes = {name: list(several) for name, several in (outcomes or {}).items()}
        self.unexportable: dict[str, Reason] = {}
        self.exported: list[list[str]] = []
        self.measured: list[list[str]] = []
        self.runtime = RUNTIME
        self.dies_at: str | None = None
        self.loads: list[OtherLoad] = []

    def export(self, workloads: Sequence[Workload]) -> dict[str, Path | Reason]:
        self.exported.append([workload.description for workload in workloads])
        answers: dict[str, Path | Reason] = {}
        for workload in workloads:
            path = self.folder / workload.identity
            path.write_text(workload.description)
            answers[workload.identity] = self.unexportable.get(workload.description, path)
        return answers

    def probe(self, target: Target) -> tuple[RuntimeIdentity, DeviceIdentity]:
        assert target == TARGET
        return self.runtime, DEVICE

    def adapted(self, protocol: MeasuringProtocol, target: Target) -> MeasuringProtocol:
        """As native tools do."""
        return replace(protocol, min_ns=ADAPTED_NS)

    def busy_with(self, device: str) -> OtherLoad:
        assert device == TARGET.device
        return self.loads.pop(0) if self.loads else QUIET_MACHINE

    def measure(
        self,
        jobs: Sequence[Job],
        target: Target,
        protocol: MeasuringProtocol,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        on_outcome: Callable[[str, Outcome], None] | None = None,
    ) -> dict[str, Outcome]:
        assert target == TARGET
        assert protocol == FOLLOWED
        names = [job.artifact.read_text() for job in jobs]
        self.measured.append(names)
        answers: dict[str, Outcome] = {}
        for done, (job, name) in enumerate(zip(jobs, names, strict=True), 1):
            if name == self.dies_at:
                raise KeyboardInterrupt
            several = self.outcomes.get(name, [replace(measurement(), runtime=self.runtime)])
            answers[job.name] = followed(several.pop(0) if len(several) > 1 else several[0])
            if on_progress is not None:
                on_progress(done, len(jobs))
            if on_outcome is not None:
                on_outcome(job.name, answers[job.name])
        return answers


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "latency.db")) as opened:
        yield opened


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def run(
    names: Sequence[str],
    store: Store,
    bench: Bench,
    on_progress: Callable[[int, int], None] | None = None,
    on_state: Callable[[str], None] | None = None,
) -> dict[str, Outcome]:
    outcomes = measured(
        [block(name) for name in names],
        TARGET,
        store=store,
        exporter=bench.export,
        protocol=PROTOCOL,
        on_progress=on_progress,
        on_state=on_state,
        measurer=bench,
    )
    descriptions = {block(name).identity: name for name in names}
    return {descriptions[identity]: outcome for identity, outcome in outcomes.items()}


def test_measured_measures_each_workload_once_when_one_stands_several_times(
    store: Store, bench: Bench
) -> None:
    assert list(run(["a", "b", "a"], store, bench)) == ["a", "b"]
    assert bench.measured == [["a", "b"]]
    assert store.count() == 2


def test_measured_exports_and_measures_nothing_when_it_is_called_again(
    tmp_path: Path, store: Store, bench: Bench
) -> None:
    bench.outcomes = {"b": [failure()], "c": [measurement(verdict=Verdict.DEGRADED)]}
    bench.unexportable = {"d": Reason("unsupported", "no converter")}
    first = run("abcd", store, bench)
    later = Bench(tmp_path)
    assert run("abcd", store, later) == first
    assert later.exported == later.measured == []
    assert first["b"] == failure()
    assert first["d"] == MeasurementFailure("", str(TARGET), Reason("unsupported", "no converter"))


def test_measured_exports_only_what_is_missing(store: Store, bench: Bench) -> None:
    run("ab", store, bench)
    run("abc", store, bench)
    assert bench.exported == [["a", "b"], ["c"]]


@pytest.fixture(name="_same_batches", autouse=True)
def _same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast or busy the machine is that runs the tests."""
    monkeypatch.setattr(outcomes_module, "next_size", lambda size, took_s: size)


@pytest.mark.parametrize(
    ("size", "took_s", "following"),
    [
        (16, BATCH_S, 16),
        (16, BATCH_S / 2, 32),
        (16, 0.0, BATCH),
        (64, 4 * BATCH_S, 16),
        (8, 100 * BATCH_S, SMALLEST_BATCH),
    ],
)
def test_batches_take_about_as_long_as_a_kill_may_lose(size: int, took_s: float, following: int) -> None:
    assert next_size(size, took_s) == following


def test_measured_works_in_batches(store: Store, bench: Bench) -> None:
    names = [f"w{number}" for number in range(2 * FIRST_BATCH + 5)]
    assert list(run(names, store, bench)) == names
    assert [len(batch) for batch in bench.exported] == [FIRST_BATCH, FIRST_BATCH, 5]
    assert bench.measured == bench.exported


def test_measured_goes_on_where_an_earlier_call_was_ended(tmp_path: Path, store: Store, bench: Bench) -> None:
    names = [f"w{number}" for number in range(FIRST_BATCH + 5)]
    bench.dies_at = names[FIRST_BATCH + 2]
    with pytest.raises(KeyboardInterrupt):
        run(names, store, bench)
    assert store.count() == FIRST_BATCH + 2
    later = Bench(tmp_path)
    assert list(run(names, store, later)) == names
    assert later.exported == later.measured == [names[FIRST_BATCH + 2 :]]


def test_measured_keeps_everything_under_the_protocol_that_the_target_follows(
    store: Store, bench: Bench
) -> None:
    bench.outcomes = {"b": [failure()]}
    outcomes = run("ab", store, bench)
    assert store.find(key_followed(block("a"))) == outcomes["a"] == followed(measurement())
    assert store.find(key_followed(block("b"))) == outcomes["b"] == failure()
    assert store.find(key_of(block("a"))) is None
    found = stored([block("a")], TARGET, store=store, protocol=PROTOCOL, measurer=bench)
    assert found == {block("a").identity: followed(measurement())}


def test_measured_measures_what_was_disturbed_again_when_all_else_is_done(store: Store, bench: Bench) -> None:
    names = ["b", *(f"w{number}" for number in range(FIRST_BATCH))]
    bench.outcomes = {"b": [measurement(1, Verdict.INVALID), measurement(2)]}
    assert run(names, store, bench)["b"] == followed(measurement(2))
    assert bench.measured == [names[:FIRST_BATCH], names[FIRST_BATCH:], ["b"]]
    assert bench.exported == [names[:FIRST_BATCH], names[FIRST_BATCH:]]


def spread(latency_ns: int, step_ns: int) -> Measurement:
    """An invalid measurement whose launches differ."""
    invalid = measurement(latency_ns, Verdict.INVALID)
    launches = [
        replace(launch, samples_ns=(latency_ns + number * step_ns,) * 20)
        for number, launch in enumerate(invalid.launches)
    ]
    return replace(invalid, launches=tuple(launches))


def test_measured_gives_the_least_disturbed_measurement_and_tries_again_when_it_is_called_again(
    store: Store, bench: Bench
) -> None:
    bench.outcomes = {"a": [spread(1000, step) for step in (300, 100, 200)] + [measurement(4)]}
    assert run("a", store, bench)["a"] == followed(spread(1000, 100))
    later = Bench(bench.folder, {"a": [spread(1000, 400)]})
    assert run("a", store, later)["a"] == followed(spread(1000, 100))
    assert later.measured == [["a"]] * (1 + REPEATS)
    assert run("a", store, bench)["a"] == followed(measurement(4))
    assert run("a", store, later)["a"] == followed(measurement(4))
    found = stored([block("a")], TARGET, store=store, protocol=PROTOCOL, measurer=bench)
    assert found == {block("a").identity: followed(measurement(4))}


@pytest.mark.parametrize("code", PASSING_CODES)
def test_failure_that_may_pass_is_tried_once_more_now_and_again_by_the_next_call(
    store: Store, bench: Bench, code: str
) -> None:
    bench.outcomes = {"a": [failure(code)]}
    assert run("ab", store, bench)["a"] == failure(code)
    assert bench.measured == [["a", "b"], ["a"]]
    assert stored([block("a")], TARGET, store=store, protocol=PROTOCOL, measurer=bench) == {}
    bench.outcomes = {}
    assert run("ab", store, bench)["a"] == followed(measurement())
    assert bench.measured == [["a", "b"], ["a"], ["a"]]


@pytest.mark.parametrize(
    ("code", "again"), [("crashed-signal-9", True), ("timeout", True), ("export-failed", False)]
)
def test_export_that_failed_in_a_way_that_may_pass_is_made_again_by_the_next_call(
    store: Store, bench: Bench, code: str, again: bool
) -> None:
    bench.unexportable = {"a": Reason(code, "")}
    failed = run("a", store, bench)["a"]
    assert failed == MeasurementFailure("", str(TARGET), Reason(code, ""))
    bench.unexportable = {}
    assert run("a", store, bench)["a"] == (followed(measurement()) if again else failed)
    assert bench.exported == ([["a"], ["a"]] if again else [["a"]])


def test_failure_of_the_workload_itself_is_not_tried_again(store: Store, bench: Bench) -> None:
    bench.outcomes = {"a": [failure("unsupported")]}
    run("a", store, bench)
    run("a", store, bench)
    assert bench.measured == [["a"]]


def test_measured_tells_that_the_machine_is_busy_and_waits_before_it_measures_again(
    store: Store, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "LOOK_EVERY_S", 0.0)
    bench.outcomes = {"a": [spread(1000, 100), measurement(2)]}
    bench.loads = [BUSY_MACHINE, BUSY_MACHINE, BUSY_MACHINE]
    told: list[str] = []
    assert run("a", store, bench, on_state=told.append)["a"] == followed(measurement(2))
    assert [line.split(":")[0] for line in told] == [
        "host is busy",
        "waiting up to 60 s for host to be quiet",
        "measuring 1 of 1 again on host/onnxruntime",
    ]
    assert "ffmpeg 1.4" in told[0]
    assert "spread" in told[2]


def test_measured_goes_on_with_what_is_known_where_the_machine_stays_busy(
    store: Store, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.0)
    bench.outcomes = {"a": [spread(1000, 100), measurement(2)]}
    bench.loads = [BUSY_MACHINE] * 9
    told: list[str] = []
    assert run("a", store, bench, on_state=told.append)["a"] == followed(spread(1000, 100))
    assert "going on all the same" in told[-1]
    assert bench.measured == [["a"]]


def test_machine_that_does_not_tell_what_it_does_is_taken_for_quiet(store: Store, bench: Bench) -> None:
    def unknown(device: str) -> OtherLoad:
        raise MeasurementError(f"'{device}' does not say what it is doing")

    bench.busy_with = unknown  # type: ignore[method-assign]
    bench.outcomes = {"a": [measurement(1, Verdict.INVALID), measurement(2)]}
    assert run("a", store, bench)["a"] == followed(measurement(2))


def test_measured_measures_again_when_the_runtime_is_another(
    store: Store, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    run("a", store, bench)
    bench.runtime = replace(RUNTIME, version="1.21.0")
    with caplog.at_level("INFO", "latency_db"):
        run("a", store, bench)
    assert bench.measured == [["a"], ["a"]]
    assert "the runtime differs" in caplog.text
    assert store.find(key_followed(block("a"))) == followed(measurement())


def test_measured_reports_progress_that_ends_at_the_total(store: Store, bench: Bench) -> None:
    run("ab", store, bench)
    bench.unexportable = {"c": Reason("unsupported", "no converter")}
    seen: list[tuple[int, int]] = []
    run("abcde", store, bench, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (2, 5)
    assert seen[-1] == (5, 5)
    assert seen == sorted(seen)


def test_measured_keeps_what_ran_and_what_did_not_on_this_host(
    tmp_path: Path, store: Store, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx", reason="builds an ONNX model")
    pytest.importorskip("onnxruntime", reason="measures with ONNX Runtime")
    monkeypatch.setenv("LATHE_STATE_DIR", str(tmp_path / "state"))
    graph = "agraph (float[1, 8] x) => (float[1, 8] y) { y = Relu(x) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {graph}')
    works, broken = block("relu"), block("not a model")

    def export(workloads: Sequence[Workload]) -> dict[str, Path]:
        paths = {workload.identity: tmp_path / f"{workload.identity}.onnx" for workload in workloads}
        onnx.save(model, paths[works.identity])
        paths[broken.identity].write_bytes(b"these bytes are no model")
        return paths

    quick = MeasuringProtocol(launches=3, min_count=5, min_ns=100_000)
    first = measured([works, broken], TARGET, store=store, exporter=export, protocol=quick)
    ran = first[works.identity]
    assert isinstance(ran, Measurement)
    assert ran.latency.value_ns > 0
    assert isinstance(first[broken.identity], MeasurementFailure)
    if ran.verdict is not Verdict.INVALID:
        again = measured([works, broken], TARGET, store=store, exporter=bench.export, protocol=quick)
        assert again == first
        assert bench.exported == []


def test_measured_refuses_when_the_exporter_leaves_a_workload_out(store: Store, bench: Bench) -> None:
    with pytest.raises(ValueError, match="left out b"):
        measured(
            [block("a"), block("b")],
            TARGET,
            store=store,
            exporter=lambda workloads: dict(list(bench.export(workloads).items())[:1]),
            protocol=PROTOCOL,
            measurer=bench,
        )
    assert bench.measured == []


def test_measured_measures_what_is_stored_when_asked_to_do_it_again(store: Store, bench: Bench) -> None:
    run("ab", store, bench)
    outcomes = measured(
        [block("a")],
        TARGET,
        store=store,
        exporter=bench.export,
        protocol=PROTOCOL,
        measurer=bench,
        again=True,
    )
    assert list(outcomes) == [block("a").identity]
    assert bench.measured == [["a", "b"], ["a"]]


def test_measured_begins_nothing_after_the_deadline_and_still_gives_what_is_stored(
    store: Store, bench: Bench
) -> None:
    run("a", store, bench)
    outcomes = measured(
        [block("a"), block("b")],
        TARGET,
        store=store,
        exporter=bench.export,
        protocol=PROTOCOL,
        measurer=bench,
        deadline_s=time.monotonic(),
    )
    assert list(outcomes) == [block("a").identity]
    assert bench.measured == [["a"]]
