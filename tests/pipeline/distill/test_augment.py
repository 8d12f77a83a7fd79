import pytest
import torch

from pipeline.distill.augment import augment


def _images(count: int = 64, size: int = 8) -> torch.Tensor:
    return torch.arange(1, count * size * size + 1, dtype=torch.float32).reshape(count, 1, size, size)


def test_augment_returns_the_images_themselves_when_kind_is_none() -> None:
    images = _images()
    assert augment(images, "none", torch.Generator()) is images


@pytest.mark.parametrize("kind", ["crop", "crop-flip"])
def test_augment_repeats_when_the_seed_repeats_and_keeps_the_shape(kind: str) -> None:
    images = _images()
    first = augment(images, kind, torch.Generator().manual_seed(3))  # type: ignore[arg-type]
    again = augment(images, kind, torch.Generator().manual_seed(3))  # type: ignore[arg-type]
    other = augment(images, kind, torch.Generator().manual_seed(4))  # type: ignore[arg-type]
    assert first.shape == images.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_crop_is_a_shift_of_at_most_an_eighth_filled_with_zeros() -> None:
    images = _images()
    shifted = augment(images, "crop", torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    for image, source in zip(shifted, padded, strict=True):
        windows = [source[:, top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
        assert any(torch.equal(image, window) for window in windows)


def test_crop_flip_mirrors_about_half_of_the_images() -> None:
    images = _images(400)
    changed = augment(images, "crop-flip", torch.Generator().manual_seed(0))
    # In a mirrored image the values fall from left to right.
    mirrored = (changed[:, 0, 4, 3] > changed[:, 0, 4, 4]).float().mean()
    assert 0.4 < float(mirrored) < 0.6


def test_resized_crop_shows_a_part_of_every_image_at_its_size() -> None:
    ramp = torch.arange(12.0).expand(200, 1, 8, 12)
    crops = augment(ramp, "resized-crop", torch.Generator().manual_seed(0))
    assert crops.shape == ramp.shape
    assert crops.min() >= 0
    assert crops.max() <= 11
    steps = crops.diff(dim=3)
    # Every row shows the same part of the ramp, enlarged; half of them from the right.
    assert torch.allclose(crops, crops[:, :, :1].expand_as(crops), atol=1e-4)
    assert steps.abs().max() <= 1 + 1e-4
    rising = (steps.mean(dim=(1, 2, 3)) > 0).float().mean()
    assert 0.4 < float(rising) < 0.6
    spans = (crops.amax(dim=(1, 2, 3)) - crops.amin(dim=(1, 2, 3))) / 11
    assert spans.min() < 0.5 < 0.8 < spans.max()
