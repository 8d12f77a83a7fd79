from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.errors import TargetError
from devices.inventory.devices import connected, find_device
from devices.target import PRECISIONS, Target

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]*", fullmatch=True)
words = st.from_regex(r"[a-z][a-z0-9-]*", fullmatch=True)
values = st.from_regex(r"(=[A-Za-z0-9][A-Za-z0-9.,_-]*)?", fullmatch=True)
targets = st.builds(
    Target,
    names,
    words,
    st.sampled_from(PRECISIONS),
    st.integers(1, 1024),
    st.dictionaries(words, values, max_size=3).map(
        lambda options: tuple(name + value for name, value in options.items())
    ),
)


@given(targets)
def test_parse_reads_back_what_str_writes(target):
    assert Target.parse(str(target)) == target


@given(st.text(max_size=40))
def test_parse_gives_a_target_or_a_target_error_whatever_the_text(text):
    try:
        assert isinstance(Target.parse(text), Target)
    except TargetError as error:
        assert error.fix


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host/litert",
        "host/litert:fp33@1",
        "host/litert:fp32@0",
        "host/litert:fp32@-1",
        "host/litert:fp32@" + "9" * 5000,
        "host/litert:fp32@9999",
        "host/litert:fp32@1\nx",
        "../x/litert:fp32",
        "-rf/litert:fp32",
        "host/litert:fp32@٣",
        "host/litert:fp32+cores=@1",
        "host/litert:fp32+cores=0;reboot@1",
    ],
)
def test_parse_refuses_other_forms(text):
    with pytest.raises(TargetError):
        Target.parse(text)


def test_parse_takes_one_thread_when_none_are_named():
    assert Target.parse("pixel8/litert:fp16+gpu") == Target("pixel8", "litert", "fp16", 1, ("gpu",))


def test_parse_reads_options_with_and_without_a_value_in_any_order():
    text = "pixel8/litert:fp16+gpu+cores=4-7@2"
    assert Target.parse(text) == Target("pixel8", "litert", "fp16", 2, ("cores=4-7", "gpu"))
    assert Target.parse(text).settings == {"cores": "4-7", "gpu": ""}
    assert str(Target.parse(text)) == "pixel8/litert:fp16+cores=4-7+gpu@2"


@pytest.mark.parametrize("options", ["+gpu+gpu", "+cores=0+cores=1"])
def test_parse_refuses_an_option_that_is_given_twice(options):
    with pytest.raises(TargetError, match="twice"):
        Target.parse(f"host/litert:fp32{options}@1")


@pytest.mark.parametrize(
    ("threads", "cores", "words"),
    [(2, 2, ""), (1, 2, ""), (99, 2, "99 threads, and the device has 2 cores"), (2, 1, "has 1 core:")],
)
def test_more_threads_than_cores_are_warned_of(threads, cores, words):
    warning = Target("host", "litert", "fp32", threads).warning(cores)
    assert words in warning
    assert bool(warning) == bool(words)


def test_find_device_always_knows_the_host():
    assert find_device("host").name == "host"


def test_connected_lists_the_known_devices_when_the_name_is_unknown():
    with pytest.raises(TargetError, match="pixel8") as caught, connected("pixel8"):
        pass
    assert "host" in caught.value.why
