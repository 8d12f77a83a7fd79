from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.connections import Completed
from devices.runtimes import answers
from devices.runtimes.answers import MALFORMED, MOST_EVENTS, Events, checked, event_of
from devices.runtimes.base import Reply

CONDITIONS: dict[str, Any] = {"load_1min": 0.5, "cpu_frequency_khz": [1, 2], "charging": None, "new": "field"}
INPUT: dict[str, Any] = {
    "name": "x",
    "dtype": "float32",
    "shape": (1, 3),
    "declared": ("batch", "3"),
    "fill": "random",
    "assumed": (0,),
    "given": False,
}
GOOD: dict[str, dict[str, Any]] = {
    "identity": {
        "runtime": {"version": "1", "binary_digest": "00"},
        "device": {"machine": "m", "cpu": "c", "cores": 4, "os": "o", "kernel": "k", "instance": "i"},
    },
    "ready": {"process_start_ns": 5},
    "started": {"job": 0},
    "result": {
        "job": 0,
        "load_ns": 1,
        "first_inference_ns": None,
        "samples_ns": [1, 2, 3],
        "peak_memory_bytes": 1000,
        "before": CONDITIONS,
        "after": CONDITIONS,
        "usage": {"wall_ns": 1, "own_cpu_ns": 1, "clock_jump_ns": -3},
        "queue": {"waiting_ns": 5, "slices": 2},
        "placement": {"delegate": "cpu", "parts": [{"where": "cpu", "nodes": 3, "partitions": None}]},
        "warnings": [{"code": "odd", "detail": "it is"}],
        "inputs": (INPUT,),
    },
    "failed": {"job": 0, "code": "load-failed", "detail": "no", "inputs": (INPUT,)},
    "canary": {"samples_ns": [1]},
    "operations": {
        "operations": [{"name": "a", "kind": "b", "where": "c", "samples_ns": [1]}],
        "total_ns": [],
    },
    "window": {"start_ns": 0, "count": 1, "samples_ns": [1], "conditions": CONDITIONS},
    "finished": {},
    "outputs": {"rows": 3, "sizes": [4, 2]},
    "fatal": {"code": "bad-option", "detail": "no"},
}


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for key, inner in items for each in paths_in(inner, (*path, key)))]


PLACES = [(kind, path) for kind, event in GOOD.items() for path in paths_in(event)[1:] if path[-1] != "new"]


def changed(kind: str, path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    event = copy.deepcopy(GOOD[kind])
    holder: Any = event
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return {"event": kind, **event}


@pytest.mark.parametrize("kind", GOOD)
def test_events_that_fit_are_kept_as_they_are(kind: str) -> None:
    [event] = checked([{"event": kind, **GOOD[kind]}])
    assert event["event"] == kind
    expected = copy.deepcopy(GOOD[kind])
    for name in ("before", "after", "conditions"):
        expected.get(name, {}).pop("new", None)
    assert {**event} == {"event": kind, **expected}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("result", ("samples_ns",), [1, -1]),
        ("result", ("samples_ns",), [1e308]),
        ("result", ("samples_ns",), ["1"]),
        ("result", ("samples_ns",), [True]),
        ("result", ("samples_ns",), [1.5]),
        ("result", ("samples_ns",), {"0": 1}),
        ("result", ("load_ns",), float("nan")),
        ("result", ("job",), -1),
        ("result", ("samples_ns",), []),
        ("result", ("usage", "wall_ns"), 0),
        ("result", ("job",), "0"),
        ("result", ("usage",), []),
        ("result", ("queue",), {"waiting_ns": -1, "slices": 2}),
        ("result", ("queue",), {"waiting_ns": 1, "slices": "2"}),
        ("result", ("before",), None),
        ("result", ("inputs",), [{**INPUT, "shape": [1]}]),
        ("result", ("inputs",), [{**INPUT, "shape": [1, -3]}]),
        ("result", ("inputs",), [{**INPUT, "assumed": [2]}]),
        ("result", ("inputs",), [{**INPUT, "assumed": [-1]}]),
        ("result", ("inputs",), [{**INPUT, "name": 5}]),
        ("failed", ("inputs",), [{**INPUT, "declared": ["1"] * 65, "shape": [1] * 65}]),
        ("identity", ("device", "cores"), 10**29),
        ("identity", ("device", "cores"), 0),
        ("identity", ("device", "machine"), ["m"]),
        ("identity", ("device", "machine"), "m" * 20_000),
        ("identity", ("runtime",), "1"),
        ("canary", ("samples_ns",), []),
        ("failed", ("code",), "a code\n"),
        ("failed", ("code",), "c" * 100),
        ("window", ("start_ns",), 10**30),
        ("operations", ("operations", 0, "samples_ns"), [-5]),
        ("finished", ("event",), "another"),
        ("finished", ("event",), ["finished"]),
    ],
)
def test_the_first_event_that_does_not_fit_ends_the_answer(
    kind: str, path: tuple[Any, ...], value: Any
) -> None:
    events = [{"event": "ready", **GOOD["ready"]}, changed(kind, path, value), {"event": "finished"}]
    found = checked(events)
    assert [event["event"] for event in found] == ["ready", MALFORMED]
    assert "it begins" in found[-1]["detail"]
    assert len(found[-1]["detail"]) < 500
    code, detail = Reply(tuple(events), Completed(0, "")).end
    assert (code, detail) == (MALFORMED, found[-1]["detail"])


@given(
    st.sampled_from(PLACES),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**40), 10**40)
        | st.floats()
        | st.text(max_size=5)
        | st.binary(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
)
def test_any_value_in_any_place_fits_or_is_malformed(place: tuple[str, tuple[Any, ...]], value: Any) -> None:
    [event] = checked([changed(*place, value)])
    assert event["event"] in (place[0], MALFORMED)


@given(st.data(), st.sampled_from(sorted(GOOD)))
def test_a_mangled_line_is_an_event_malformed_or_not_ours(data: st.DataObject, kind: str) -> None:
    line = json.dumps({"event": kind, **GOOD[kind]})
    place = data.draw(st.integers(0, len(line) - 1))
    mangle: Callable[[str], str] = data.draw(
        st.sampled_from(
            [
                lambda text: text[:place],
                lambda text: text[:place] + "9" * 5000 + text[place:],
                lambda text: text[:place] + "[" * 3000 + text[place:],
                lambda text: text[:place] + text[place + 1 :],
                lambda text: text[:place] + "\0\ud800" + text[place:],
            ]
        )
    )
    event = event_of(mangle(line))
    if event is not None:
        assert isinstance(checked([event])[0]["event"], str)


def test_lines_of_others_are_passed_over() -> None:
    for line in ("", "Welcome to Ubuntu", "{}", '["event"]', '{"message": "x"}', "\x1b[0m"):
        assert event_of(line) is None


def test_there_may_not_be_events_without_end() -> None:
    found = checked([{"event": "finished"}] * (MOST_EVENTS + 5))
    assert len(found) == MOST_EVENTS + 1
    assert found[-1]["event"] == MALFORMED


@pytest.mark.parametrize(
    ("line", "limits"),
    [
        ('{"event": "started", "job": -1}', {}),
        ('{"event": "started", "job"', {}),
        ('{"event": "started", "job": 2}', {"MOST_EVENTS": 2}),
        ('{"event": "started", "job": 2}', {"MOST_EVENT_CHARACTERS": 70}),
    ],
)
def test_nothing_is_kept_behind_the_first_event_that_does_not_fit(
    line: str, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(answers, name, value)
    events = Events()
    sound = [events.take(f'{{"event": "started", "job": {number}}}') for number in range(2)]
    assert sound == [{"event": "started", "job": 0}, {"event": "started", "job": 1}]
    assert events.take("a line of a library") is None
    assert not events.over.is_set()
    odd = events.take(line)
    assert odd is not None
    assert odd["event"] == MALFORMED
    assert events.over.is_set()
    assert events.take('{"event": "finished"}') is None
    assert events.found == [*sound, odd]
