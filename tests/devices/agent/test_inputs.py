"""Shapes and values of inputs as the agent chooses and takes them."""

from types import SimpleNamespace

import numpy as np
import pytest

from devices.agent import inputs


def model(**described):
    """A model with inputs, each declared sizes and a type; open sizes are used as 1."""
    return SimpleNamespace(
        described=[(name, sizes) for name, (sizes, _) in described.items()],
        inputs=[
            (tuple(size if isinstance(size, int) else 1 for size in sizes), dtype)
            for sizes, dtype in described.values()
        ],
    )


def filled(settings=None, seed=0, **described):
    arrays, told = inputs.fill(model(**described), settings or {}, seed)
    return dict(zip(described, arrays, strict=True)), {entry["name"]: entry for entry in told}


def test_values_are_equal_when_the_seed_is_equal_and_differ_otherwise():
    wanted = {"x": ((2, 3), "float32"), "n": ((4,), "int64")}
    (first, _), (again, _), (other, _) = (filled(seed=seed, **wanted) for seed in (1, 1, 2))
    for name, (shape, dtype) in wanted.items():
        assert (first[name].shape, first[name].dtype) == (shape, np.dtype(dtype))
        np.testing.assert_array_equal(first[name], again[name])
    assert (first["x"] != other["x"]).any()
    assert set(first["n"].tolist()) <= {0, 1}


@pytest.mark.parametrize(
    ("name", "sizes", "dtype", "said"),
    [
        ("x", (1, 3), "float32", "random"),
        ("noise_scale", (), "float32", "value:1"),
        ("input_ids", (1, 8), "int64", "range:0,99"),
        ("attention_mask", (1, 8), "int64", "ones"),
        ("token_type_ids", (1, 8), "int64", "zeros"),
        ("position_ids", (1, 8), "int64", "positions"),
        ("sr", (), "int64", "value:16000"),
        ("sample_rate", (1,), "int32", "value:16000"),
        ("n", (), "int64", "value:1"),
        ("image", (1, 8, 8, 3), "uint8", "random"),
        ("flags", (1, 8), "bool", "ones"),
        ("use_cache_branch", (1,), "bool", "zeros"),
    ],
)
def test_values_that_nobody_gave_follow_type_and_name(name, sizes, dtype, said):
    arrays, told = filled(**{name: (sizes, dtype)})
    assert told[name]["fill"] == said
    assert told[name]["given"] is False
    assert arrays[name].dtype == dtype


def test_a_length_is_the_longest_open_dimension_of_the_other_inputs():
    settings = {"shapes": {"tokens": [1, 37]}}
    made = model(tokens=((1, "time"), "int64"), tokens_lengths=((1,), "int64"))
    made.inputs[0] = ((1, 37), "int64")
    arrays, told = inputs.fill(made, settings, 0)
    assert arrays[1].tolist() == [37]
    assert told[1]["fill"] == "value:37"


def test_eight_bit_inputs_have_all_values_and_positions_count_up():
    arrays, _ = filled(image=((1, 64, 64), "uint8"), position_ids=((1, 5), "int64"))
    assert arrays["image"].min() < 10 and arrays["image"].max() > 245
    assert arrays["position_ids"].tolist() == [[0, 1, 2, 3, 4]]


def test_bfloat16_is_given_by_its_bits_and_of_smaller_types_it_is_told_what_they_hold():
    settings = {"fills": {"x": {"kind": "value", "value": 1}}}
    described = {"x": ((1, 2), "bfloat16"), "w": ((1, 4), "int4"), "e": ((1, 2), "float8e5m2")}
    arrays, told = filled(settings, **described)
    assert not arrays["e"].any() and told["e"]["fill"] == "zeros"
    assert arrays["x"].dtype == np.uint16 and arrays["x"].tolist() == [[0x3F80, 0x3F80]]
    assert told["w"]["fill"] == "whatever is in memory"


def test_open_sizes_are_told_unless_they_are_given():
    described = [("x", ("batch", 3, "height", "width"))]
    assert inputs.shapes_of(described, {}) == [(1, 3, 1, 1)]
    assert inputs.assumed(*described[0], {}, {}) == [0, 2, 3]
    given = {"shapes": {"x": [1, 3, 48, 320]}}
    assert inputs.shapes_of(described, given) == [(1, 3, 48, 320)]
    assert inputs.assumed(*described[0], given, {}) == []


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"pixel": [1, 3, 8, 8]}, "the model has no input 'pixel'; the nearest is 'pixels'; it has 'pixels'"),
        ({"pixels": [3, 8, 8]}, "[batch, 3, height, width], 4 dimensions, and [3, 8, 8] has 3"),
        ({"pixels": [1, 4, 8, 8]}, "[1, 4, 8, 8] does not fit"),
        ({"pixels": [1, 3, 2_000_000, 2_000_000]}, "12,000,000,000,000 bytes at least"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_with_what_would(shapes, says):
    described = [("pixels", ("batch", 3, "height", "width"))]
    with pytest.raises(inputs.BadInputError) as caught:
        inputs.shapes_of(described, {"shapes": shapes})
    assert says in str(caught.value)


def test_values_for_which_the_memory_is_too_small_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr(inputs.machine, "conditions", lambda: {"memory_available_bytes": 1000})
    with pytest.raises(inputs.BadInputError, match=r"\[1, 200\] takes 1,600 bytes at least, and 1,000 bytes"):
        filled(x=((1, 200), "float32"))
    assert filled(x=((1, 200), "uint8"))[0]["x"].shape == (1, 200)


def test_a_shape_that_an_engine_did_not_take_is_refused_and_never_ignored():
    plain = SimpleNamespace(inputs=[((1, 3), "float32")])
    assert inputs.fill(plain, {"shapes": {"input_0": [1, 3]}}, 0)[1][0]["shape"] == [1, 3]
    for shapes in ({"input_0": [2, 3]}, {"x": [1, 3]}):
        with pytest.raises(inputs.BadInputError):
            inputs.fill(plain, {"shapes": shapes}, 0)
    engine = SimpleNamespace(described=[("x", ("batch", 3))], inputs=[((1, 3), "float32")])
    with pytest.raises(inputs.BadInputError, match=r"was to be \[2, 3\]; this runtime takes \[1, 3\]"):
        inputs.fill(engine, {"shapes": {"x": [2, 3]}}, 0)


def file(path, values, form):
    np.save(path, values)
    return {"kind": "file", "path": str(path), "form": form, "said": f"{path.name} (0123)"}


@pytest.mark.parametrize(
    ("declared", "dtype", "shape", "first"),
    [
        ((1, 3, "h", "w"), "float32", (1, 3, 2, 4), 1.0),
        ((1, "h", "w", 3), "float32", (1, 2, 4, 3), 1.0),
        ((1, 4, 8, 3), "uint8", (1, 4, 8, 3), 255),
        ((1, 4, 8, 3), "int8", (1, 4, 8, 3), 127),
    ],
)
def test_a_picture_takes_the_layout_and_the_type_of_the_input(tmp_path, declared, dtype, shape, first):
    picture = np.zeros((2, 4, 3), np.uint8)
    picture[..., 0] = 255
    settings = {
        "shapes": {"x": {"picture": [2, 4, 3]}},
        "fills": {"x": file(tmp_path / "a.npy", picture, "picture")},
    }
    assert inputs.shapes_of([("x", declared)], settings) == [shape]
    made = SimpleNamespace(described=[("x", declared)], inputs=[(shape, dtype)])
    (values,), (told,) = inputs.fill(made, settings, 0)
    assert (values.shape, values.dtype) == (shape, dtype)
    red = values[:, 0] if declared[1] == 3 else values[..., 0]
    assert (red == first).all()
    assert told["fill"] == "a.npy (0123)" and told["assumed"] == []


def test_a_picture_with_other_channels_than_the_input_is_refused():
    with pytest.raises(inputs.BadInputError, match=r"of 1 channels; the picture has 3"):
        inputs.shapes_of([("x", (1, 1, "h", "w"))], {"shapes": {"x": {"picture": [2, 4, 3]}}})


def test_a_sound_is_cut_to_what_the_input_takes_and_refused_where_it_is_too_short(tmp_path):
    sound = np.full(1000, 16384, np.int16)
    settings = {"shapes": {"x": {"sound": [1000]}}, "fills": {"x": file(tmp_path / "a.npy", sound, "sound")}}
    assert inputs.shapes_of([("x", ("batch", "samples"))], settings) == [(1, 1000)]
    made = SimpleNamespace(described=[("x", (1, 512))], inputs=[((1, 512), "float32")])
    assert inputs.shapes_of(made.described, settings) == [(1, 512)]
    (values,), _ = inputs.fill(made, settings, 0)
    assert values.shape == (1, 512) and (values == 0.5).all()
    with pytest.raises(inputs.BadInputError, match="takes 2000 samples, and the sound has 1000"):
        inputs.shapes_of([("x", (1, 2000))], settings)


@pytest.mark.parametrize(
    ("values", "form", "shape", "says"),
    [
        (
            np.zeros((2, 4, 3), np.uint8),
            "picture",
            (2, 3, 8, 8),
            "[2, 3, 8, 8], which is not one picture of 3",
        ),
        (
            np.zeros((2, 4, 3), np.uint8),
            "picture",
            (1, 4, 8, 8),
            "[1, 4, 8, 8], which is not one picture of 3",
        ),
        (np.zeros(1000, np.int16), "sound", (1, 2000), "takes 2000 samples, and the sound has 1000"),
        (np.zeros(1000, np.int16), "sound", (2, 500), "is [2, 500], which is no sound"),
    ],
)
def test_a_picture_or_sound_that_does_not_fit_a_given_shape_is_refused(tmp_path, values, form, shape, says):
    settings = {"fills": {"x": file(tmp_path / "a.npy", values, form)}}
    declared = tuple(f"size_{axis}" for axis in range(len(shape)))
    made = SimpleNamespace(described=[("x", declared)], inputs=[(shape, "float32")])
    with pytest.raises(inputs.BadInputError) as caught:
        inputs.fill(made, settings, 0)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((1, 3), np.int64), "is of type float32, and a.npy (0123) of int64"),
        (np.zeros((1, 4), np.float32), "has [1, 3], and a.npy (0123) [1, 4]"),
    ],
)
def test_an_array_of_another_type_or_shape_is_refused(tmp_path, values, says):
    settings = {"fills": {"x": file(tmp_path / "a.npy", values, "array")}}
    with pytest.raises(inputs.BadInputError) as caught:
        filled(settings, x=((1, 3), "float32"))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "values", "says"),
    [
        ("uint8", {"kind": "value", "value": 256}, "is of type uint8, which cannot hold 256"),
        ("int64", {"kind": "value", "value": 0.5}, "cannot hold 0.5"),
        ("bool", {"kind": "range", "low": 0, "high": 2}, "cannot hold 2"),
        ("float16", {"kind": "value", "value": 70000.0}, "is of type float16, which cannot hold 70000"),
    ],
)
def test_a_value_that_the_type_cannot_hold_is_refused(dtype, values, says):
    with pytest.raises(inputs.BadInputError) as caught:
        filled({"fills": {"x": values}}, x=((1, 3), dtype))
    assert says in str(caught.value)


def test_token_ids_that_a_model_refuses_are_tamed_unless_they_were_given():
    _, told = filled(input_ids=((1, 3), "int64"), x=((1,), "float32"))
    tamed = inputs.tamer({"delegate": "cpu"}, list(told.values()))
    _, told = filled(tamed, input_ids=((1, 3), "int64"), x=((1,), "float32"))
    assert told["input_ids"]["fill"] == "range:0,1" and told["input_ids"]["given"] is False
    assert inputs.tamer(tamed, list(told.values())) is None
    given = {"fills": {"input_ids": {"kind": "range", "low": 0, "high": 99}}}
    _, told = filled(given, input_ids=((1, 3), "int64"))
    assert inputs.tamer(given, list(told.values())) is None


def test_a_size_of_one_name_is_given_once_for_all_inputs_that_have_it():
    described = [
        ("input_ids", ("batch", "seq")),
        ("attention_mask", ("batch", "seq")),
        ("extra", ("?", "past")),
    ]
    given = {"shapes": {"input_ids": [2, 128]}}
    assert inputs.shapes_of(described, given) == [(2, 128), (2, 128), (1, 1)]
    named = inputs.named_sizes(described, given)
    assert [inputs.assumed(name, declared, given, named) for name, declared in described] == [[], [], [0, 1]]
    # What is given for an input itself comes first.
    given["shapes"]["attention_mask"] = [2, 64]
    assert inputs.shapes_of(described, given)[:2] == [(2, 128), (2, 64)]


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("uint64", 0, 100), ("uint64", 2**63, 2**64 - 1), ("int8", -128, 127)]
)
def test_a_range_covers_all_that_a_type_holds(dtype, low, high):
    fills = {"x": {"kind": "range", "low": low, "high": high}}
    arrays, _ = filled({"fills": fills}, x=((1000,), dtype))
    assert arrays["x"].dtype == dtype
    assert low <= int(arrays["x"].min()) and int(arrays["x"].max()) <= high
    assert int(arrays["x"].max()) - int(arrays["x"].min()) > (high - low) / 2
