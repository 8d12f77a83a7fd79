from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.data.images import decode_all, resize_all, with_channels
from pipeline.errors import DataError


def encoded(pixels: np.ndarray, kind: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def test_decode_all_gives_back_lossless_pixels() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    grey = colour[..., 0]
    assert np.array_equal(decode_all([encoded(colour)], ["a"], None).pixels[0], colour)
    assert np.array_equal(decode_all([encoded(grey)], ["a"], None).pixels[0, ..., 0], grey)


def test_decode_all_repeats_grey_when_another_image_has_colour() -> None:
    grey = np.full((4, 4), 7, np.uint8)
    images = decode_all([encoded(grey), encoded(np.zeros((4, 4, 3), np.uint8))], ["a", "b"], None).pixels
    assert images.shape == (2, 4, 4, 3)
    assert (images[0] == 7).all()


def test_decode_all_scales_16_bit_grey_instead_of_clipping_it() -> None:
    levels = np.array([[0, 256, 0x8000, 0xFFFF]], np.uint16)
    assert decode_all([encoded(levels)], ["a"], None).pixels[0, 0, :, 0].tolist() == [0, 1, 128, 255]


def test_decode_all_turns_a_photograph_upright() -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(stream, "jpeg", exif=exif)
    assert decode_all([stream.getvalue()], ["a"], None).pixels.shape == (1, 8, 4, 3)


def test_decode_all_names_images_that_are_corrupted_and_decodes_the_others() -> None:
    good = encoded(np.zeros((4, 4), np.uint8))
    found = decode_all([b"", good, good[: len(good) // 2], good], ["empty", "good", "cut", "better"], None)
    assert found.rows.tolist() == [1, 3]
    assert found.pixels.shape == (2, 4, 4, 1)
    assert [each.partition(" (")[0] for each in found.broken] == ["empty", "cut"]


def test_decode_all_gives_no_pixels_when_every_image_is_corrupted() -> None:
    found = decode_all([b"", b"text"], ["a", "b"], None)
    assert (len(found.pixels), len(found.rows), len(found.broken)) == (0, 0, 2)


def test_decode_all_names_two_images_when_sizes_differ() -> None:
    images = [encoded(np.zeros((4, 6), np.uint8)), encoded(np.zeros((4, 4), np.uint8))]
    with pytest.raises(DataError, match="differ in size") as caught:
        decode_all(images, ["wide.png", "square.png"], None)
    assert "wide.png is 6x4, square.png is 4x4" in caught.value.why
    assert "image_size" in caught.value.fix


@pytest.mark.parametrize("shape", [(8, 16), (16, 8), (5, 5), (16, 8, 3)])
def test_decode_all_crops_the_centre_when_a_size_is_given(shape: tuple[int, ...]) -> None:
    pixels = np.zeros(shape, np.uint8)
    rows, columns = shape[0] // 2, shape[1] // 2
    pixels[rows - 2 : rows + 2, columns - 2 : columns + 2] = 200
    image = decode_all([encoded(pixels)], ["a"], 8).pixels[0]
    assert image.shape[:2] == (8, 8)
    assert image[4, 4, 0] > 150


def test_resize_all_agrees_with_decoding_at_that_size() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 12, 9, 3), np.uint8)
    decoded = decode_all([encoded(image) for image in pixels], list("abc"), 6).pixels
    assert np.array_equal(resize_all(pixels, 6), decoded)
    assert resize_all(pixels[..., :1], 6).shape == (3, 6, 6, 1)
    assert resize_all(pixels[:0], 6).shape == (0, 6, 6, 3)  # where none could be decoded


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (6, 10)])
def test_images_become_as_high_and_wide_as_is_asked_for(shape: tuple[int, int]) -> None:
    pixels = np.zeros((2, *shape, 3), np.uint8)
    # The middle of the height is bright, over the whole width.
    pixels[:, shape[0] // 2 - 1 : shape[0] // 2 + 1] = 255
    resized = resize_all(pixels, (6, 10))
    assert resized.shape == (2, 6, 10, 3)
    assert np.array_equal(resized, decode_all([encoded(each) for each in pixels], list("ab"), (6, 10)).pixels)
    rows = resized[0, :, :, 0].mean(axis=1)
    assert rows[2:4].min() > rows[[0, 5]].max()
    assert np.ptp(resized[0, :, :, 0], axis=1).max() == 0


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_resize_all_treats_each_channel_alike(channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 12, 9, channels), np.uint8)
    resized = resize_all(pixels, 6)
    for place in range(channels):
        assert np.array_equal(resized[..., place : place + 1], resize_all(pixels[..., place : place + 1], 6))


def test_with_channels_leaves_colour_alone() -> None:
    colour = np.zeros((2, 4, 4, 3), np.uint8)
    assert with_channels(colour, 3) is colour


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n%%EOF\n",
        b"P6 50000 50000 255\n",
    ],
    ids=["PostScript, which is a program", "too many pixels"],
)
def test_decode_all_refuses_what_runs_or_has_no_end(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    monkeypatch.setattr("subprocess.check_call", None)
    [broken] = decode_all([content], ["it"], None).broken
    assert "cannot identify" in broken or "exceeds limit" in broken or "suspiciously large" in broken
