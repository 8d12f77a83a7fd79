"""Files that inputs are taken from, good and bad."""

import os
import wave

import numpy as np
import pytest
from PIL import Image

from devices.errors import MeasurementError
from devices.inputs import read_input


def values_of(found):
    return np.load(found.npy)


def sound(path, samples, channels=1, width=2):
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(channels)
        stream.setsampwidth(width)
        stream.setframerate(16000)
        stream.writeframes(samples.tobytes())
    return path


def test_an_npz_file_gives_the_array_of_the_name_or_its_only_one(tmp_path):
    np.savez(tmp_path / "two.npz", x=np.ones(3), y=np.zeros(2))
    np.savez(tmp_path / "one.npz", other=np.full(4, 7))
    assert values_of(read_input("y", tmp_path / "two.npz", tmp_path)).tolist() == [0, 0]
    assert values_of(read_input("x", tmp_path / "two.npz", tmp_path)).tolist() == [1, 1, 1]
    assert values_of(read_input("x", tmp_path / "one.npz", tmp_path)).tolist() == [7] * 4
    with pytest.raises(MeasurementError, match="cannot be read") as caught:
        read_input("z", tmp_path / "two.npz", tmp_path)
    assert "no array 'z', only x and y" in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "shape"), [("RGB", (4, 6, 3)), ("L", (4, 6, 1)), ("P", (4, 6, 3)), ("RGBA", (4, 6, 3))]
)
def test_a_picture_has_height_width_and_channels(tmp_path, mode, shape):
    Image.new("RGB", (6, 4), (255, 0, 0)).convert(mode).save(tmp_path / "a.PNG")
    found = read_input("x", tmp_path / "a.PNG", tmp_path)
    assert (found.form, found.shape) == ("picture", shape)
    assert found.sizes() == {"picture": list(shape)}
    if shape[2] == 3:
        assert values_of(found)[0, 0].tolist() == [255, 0, 0]


def test_a_picture_is_turned_as_its_exif_data_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_input("x", tmp_path / "a.jpg", tmp_path).shape == (6, 4, 3)


def test_a_sound_gives_the_samples_of_its_first_channel(tmp_path):
    path = sound(tmp_path / "a.wav", np.array([[1, 2], [3, 4]], np.int16), channels=2)
    found = read_input("x", path, tmp_path)
    assert values_of(found).tolist() == [1, 3] and found.sizes() == {"sound": [2]}


def test_names_of_values_tell_their_content(tmp_path):
    for name, value in (("a", 1), ("b", 2)):
        np.save(tmp_path / f"{name}.npy", np.array([value]))
    first, second = (read_input("x", tmp_path / f"{name}.npy", tmp_path) for name in "ab")
    assert first.said[:3] == "a.n" and first.said[-9:] != second.said[-9:]


def cut(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".wav"])
def test_a_pipe_in_the_place_of_a_file_is_refused(tmp_path, suffix):
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    with pytest.raises(MeasurementError) as caught:
        read_input("x", pipe, tmp_path)
    assert "not a regular file" in caught.value.why


def test_damaged_files_are_refused_with_the_cause(tmp_path):
    np.save(tmp_path / "whole.npy", np.zeros(1000))
    Image.new("RGB", (60, 40)).save(tmp_path / "whole.png")
    sound(tmp_path / "whole.wav", np.zeros(1000, np.int16))
    whole = {path.suffix: path.read_bytes() for path in tmp_path.glob("whole.*")}
    bad = [
        *(cut(tmp_path / f"cut{suffix}", content[: len(content) // 2]) for suffix, content in whole.items()),
        *(cut(tmp_path / f"empty{suffix}", b"") for suffix in (".npy", ".npz", ".png", ".jpg", ".wav")),
        cut(tmp_path / "html.png", b"<html>404</html>"),
        cut(tmp_path / "other.npz", whole[".npy"]),
        # Of a header without its end, and a part longer than all, readers raise kinds of their own.
        cut(tmp_path / "open.npy", whole[".npy"].replace(b"}", b"(", 1)),
        cut(tmp_path / "long.wav", whole[".wav"].replace(b"fmt ", b"FMT ", 1)[:16] + b"\xff\xff\xff\x7f"),
        sound(tmp_path / "wide.wav", np.zeros(10, np.int32), width=4),
    ]
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    for path in [*bad, tmp_path / "text.npy", tmp_path / "object.npy"]:
        with pytest.raises(MeasurementError) as caught:
            read_input("x", path, tmp_path)
        assert caught.value.why, path.name
