"""Inputs as they are written in commands."""

import numpy as np
import pytest

from devices.errors import MeasurementError
from devices.inputs import Fill, Given, GivenInput, given_from


def given(tmp_path, shapes=(), fills=(), files=(), signature="", names=()):
    return given_from(shapes, fills, files, signature, tmp_path, names=names)


def test_nothing_is_given_when_no_option_is_written(tmp_path):
    assert given(tmp_path) == (Given(),)
    assert not Given() and Given(signature="encode")


def test_shapes_and_fills_are_read_by_name(tmp_path):
    (found,) = given(tmp_path, ["a=b:0=1,3,48,320", "s="], ["ids=range:0,100", "a=b:0=value:0.5"])
    assert found.inputs == (
        GivenInput("a=b:0", (1, 3, 48, 320), Fill("value", value=0.5)),
        GivenInput("s", ()),
        GivenInput("ids", None, Fill("range", low=0, high=100)),
    )
    assert found.shapes == "a=b:0=1,3,48,320 s="


@pytest.mark.parametrize(
    ("files", "names", "chosen"),
    [
        (["c.npy"], [], "a=b"),
        (["b=c.npy"], [], "a"),
        (["c.npy", "b=c.npy"], ["a=b"], "a=b"),
        (["c.npy", "b=c.npy"], ["a"], "a"),
        (["c.npy"], ["a", "a=b"], "a=b"),
    ],
)
def test_a_name_with_an_equals_sign_is_told_from_a_file_with_one(tmp_path, monkeypatch, files, names, chosen):
    monkeypatch.chdir(tmp_path)
    for file in files:
        np.save(file, np.ones(3))
    (found,) = given(tmp_path, files=["a=b=c.npy"], names=names)
    assert [each.name for each in found.inputs] == [chosen]


def test_a_file_that_is_missing_is_refused_by_the_name_that_a_model_has(tmp_path):
    with pytest.raises(MeasurementError, match=r"input 'a=b' cannot be read from 'absent\.npy'"):
        given(tmp_path, files=["a=b=absent.npy"], names=["a=b"])


def test_whole_numbers_are_exact(tmp_path):
    (found,) = given(tmp_path, fills=["n=range:0,18446744073709551615", "m=value:-9007199254740993"])
    assert [each.values for each in found.inputs] == [
        Fill("range", low=0, high=2**64 - 1),
        Fill("value", value=-(2**53) - 1),
    ]


def test_several_shapes_of_an_input_are_a_sweep_in_which_others_keep_theirs(tmp_path):
    found = given(tmp_path, ["x=1,8", "x=1,16", "y=1,2", "x=1,8"], ["y=ones"])
    assert [each.shapes for each in found] == ["x=1,8 y=1,2", "x=1,16 y=1,2"]
    assert {each.inputs[1].values for each in found} == {Fill("ones")}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shapes": ["x"]}, "--shape x gives no input"),
        ({"shapes": ["=1,2"]}, "gives no input"),
        ({"shapes": ["x=1,-3"]}, "none below 1"),
        ({"shapes": ["x=1,3,0,0"]}, "a size is from 1 to"),
        ({"shapes": ["x=1,a"]}, "each a whole number"),
        ({"shapes": ["x=1,,2"]}, "each a whole number"),
        ({"shapes": ["x=1,9999999999"]}, "a size is from 1 to 2,147,483,647"),
        ({"shapes": ["x=" + ",".join("1" * 40)]}, "at most 16 sizes"),
        ({"shapes": ["x=1", "x=2", "y=1", "y=2", "y=3"]}, "do not go together"),
        ({"fills": ["x=noise"]}, "values are zeros, ones, random, range:LOW,HIGH or value:NUMBER"),
        ({"fills": ["x=range:5,1"]}, "says no values"),
        ({"fills": ["x=value:nan"]}, "says no values"),
        ({"fills": ["x=ones:1"]}, "says no values"),
        ({"fills": ["x=ones", "x=zeros"]}, "filled twice"),
        ({"files": ["x=photo.gif"]}, "no file that an input can be taken from"),
        ({"files": ["x=absent.npy"]}, "cannot be read"),
    ],
)
def test_what_is_badly_written_is_refused_with_what_is_right(tmp_path, options, says):
    with pytest.raises(MeasurementError) as caught:
        given(tmp_path, **options)
    assert says in str(caught.value)


def test_the_agent_is_told_shapes_values_and_where_the_file_is(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3), np.float32))
    (found,) = given(tmp_path, ["y=1,2"], ["y=value:3"], [f"x={tmp_path / 'a.npy'}"], "encode")
    message = found.message(lambda path: f"/device/{path.suffix}")
    assert message["shapes"] == {"y": [1, 2], "x": [2, 3]}
    assert message["fills"]["y"] == {"kind": "value", "value": 3}
    assert message["fills"]["x"]["path"] == "/device/.npy" and message["fills"]["x"]["said"].startswith(
        "a.npy ("
    )
    assert message["signature"] == "encode"
