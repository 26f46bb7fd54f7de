"""Standardising, augmenting and embedding pictures."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from nearfar.app.augment import AugmentConfig, augment, embed_pictures, standardise

OFF = AugmentConfig(**dict.fromkeys(asdict(AugmentConfig()), 0.0))


def rng(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(count: int = 4, channels: int = 1, height: int = 13, width: int = 9, seed: int = 2) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=rng(seed))


def stored(count: int = 5, channels: int = 1, seed: int = 2) -> torch.Tensor:
    return (grey(count, channels, seed=seed) * 255).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_standardise_equals_loops(channels: int) -> None:
    pictures = stored(3, channels)
    expected = torch.empty(pictures.shape, dtype=torch.float64)
    for row, picture in enumerate(pictures.to(torch.float64)):
        values = picture.flatten().tolist()
        mean = math.fsum(values) / len(values)
        sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
        expected[row] = (picture - mean) / sd
    result = standardise(pictures)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)


def test_standardise_takes_floats_and_ignores_light() -> None:
    pictures = stored()
    torch.testing.assert_close(standardise(pictures.float() / 255), standardise(pictures))
    torch.testing.assert_close(
        standardise(0.3 + 0.4 * pictures.float() / 255), standardise(pictures), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("level", [0, 7, 178, 255])
def test_a_constant_picture_becomes_zeros_and_its_neighbour_does_not(level: int) -> None:
    flat = torch.full((1, 1, 13, 9), level, dtype=torch.uint8)
    for batch in (torch.cat([flat, stored(1)]), torch.cat([flat, stored(1)]).float() / 255):
        zeros, other = standardise(batch)
        assert torch.equal(zeros, torch.zeros(1, 13, 9))
        assert abs(float(other.square().mean()) - 1) < 1e-5


def test_one_grey_level_in_one_pixel_is_not_constant() -> None:
    pictures = torch.full((1, 1, 100, 100), 200, dtype=torch.uint8)
    pictures[0, 0, 3, 5] = 201
    assert abs(float(standardise(pictures).square().mean()) - 1) < 1e-2


@pytest.mark.parametrize("channels", [1, 3])
def test_augment_keeps_shape_range_and_input(channels: int) -> None:
    pictures = grey(6, channels)
    before = pictures.clone()
    result = augment(pictures, rng())
    assert result.shape == pictures.shape
    assert result.dtype == pictures.dtype
    assert float(result.min()) >= 0
    assert float(result.max()) <= 1
    assert torch.equal(pictures, before)


def test_augment_depends_on_the_generator_alone() -> None:
    pictures = grey()
    torch.manual_seed(1)
    generator = rng()
    global_state = torch.get_rng_state()
    first, second = augment(pictures, generator), augment(pictures, generator)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert not torch.equal(first, second)
    torch.manual_seed(2)
    assert torch.equal(augment(pictures, rng()), first)


def test_augment_goes_on_from_a_saved_state() -> None:
    pictures, generator = grey(), rng()
    augment(pictures, generator)
    state = generator.get_state()
    expected = augment(pictures, generator)
    restored = torch.Generator()
    restored.set_state(state)
    assert torch.equal(augment(pictures, restored), expected)


def test_pictures_of_one_batch_are_changed_differently() -> None:
    one = augment(grey(1).expand(3, -1, -1, -1), rng())
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[1], one[2])


def test_nothing_switched_on_changes_nothing() -> None:
    torch.testing.assert_close(augment(grey(), rng(), OFF), grey(), atol=1e-5, rtol=0)


def test_no_pictures_stay_no_pictures() -> None:
    assert augment(torch.zeros(0, 1, 5, 4), rng()).shape == (0, 1, 5, 4)


def test_a_certain_flip_is_a_mirror() -> None:
    result = augment(grey(), rng(), replace(OFF, flip=1.0))
    torch.testing.assert_close(result, grey().flip(-1), atol=1e-5, rtol=0)


def test_half_the_pictures_are_flipped() -> None:
    pictures = grey(1).expand(200, -1, -1, -1)
    result = augment(pictures, rng(), replace(OFF, flip=0.5))
    flipped = sum(bool((row - pictures[0]).abs().max() > 0.1) for row in result)
    assert 70 < flipped < 130


def test_a_shift_moves_a_point_by_at_most_its_share() -> None:
    point = torch.zeros(1, 1, 41, 31)
    point[0, 0, 20, 15] = 1.0
    result = augment(point.expand(50, -1, -1, -1), rng(), replace(OFF, shift=0.1))
    down = (result.sum((1, 3)) * torch.arange(41)).sum(1) / result.sum((1, 2, 3)) - 20
    right = (result.sum((1, 2)) * torch.arange(31)).sum(1) / result.sum((1, 2, 3)) - 15
    assert 2.5 < float(down.abs().max()) <= 4.1 + 1e-3
    assert 2.0 < float(right.abs().max()) <= 3.1 + 1e-3
    assert float(down.min()) < -1 < 1 < float(down.max())


def test_a_rotation_turns_a_point_about_the_middle() -> None:
    point = torch.zeros(1, 1, 61, 61)
    point[0, 0, 41:44, 45:48] = 1.0  # 12 below and 16 right of the middle: 20 away
    result = augment(point.expand(40, -1, -1, -1), rng(), replace(OFF, rotation=30.0))
    mass = result.sum((1, 2, 3))
    down = (result.sum((1, 3)) * torch.arange(61)).sum(1) / mass - 30
    right = (result.sum((1, 2)) * torch.arange(61)).sum(1) / mass - 30
    torch.testing.assert_close(torch.hypot(down, right), torch.full((40,), 20.0), atol=0.2, rtol=0)
    angle = torch.rad2deg(torch.atan2(down, right)) - math.degrees(math.atan2(12, 16))
    assert 20 < float(angle.abs().max()) < 31
    assert float(angle.min()) < 0 < float(angle.max())


def test_a_scale_moves_a_point_away_or_nearer() -> None:
    point = torch.zeros(1, 1, 61, 61)
    point[0, 0, 29:32, 44:47] = 1.0  # 15 right of the middle
    result = augment(point.expand(40, -1, -1, -1), rng(), replace(OFF, scale=0.3))
    right = (result.sum((1, 2)) * torch.arange(61)).sum(1) / result.sum((1, 2, 3)) - 30
    factor = torch.log(right / 15)
    assert -0.42 < float(factor.min()) < -0.15 < 0.15 < float(factor.max()) < 0.42


def test_gamma_and_brightness_keep_the_order_of_grey_levels() -> None:
    ramp = torch.linspace(0.05, 0.5, 7).expand(20, 1, 1, 7)
    for config in (replace(OFF, gamma=0.5), replace(OFF, brightness=0.3)):
        result = augment(ramp, rng(), config)
        assert (result.diff(dim=-1) > 0).all()
        assert float((result - ramp).abs().amax((1, 2, 3)).min()) > 0
    scaled = augment(ramp, rng(), replace(OFF, brightness=0.3)) / ramp
    torch.testing.assert_close(scaled, scaled[..., :1].expand_as(scaled))


def test_lighting_is_linear_across_the_picture() -> None:
    flat = torch.full((10, 1, 11, 8), 0.4)
    result = augment(flat, rng(), replace(OFF, lighting=0.5))
    assert float(result.diff(n=2, dim=-1).abs().max()) < 1e-5
    assert float(result.diff(n=2, dim=-2).abs().max()) < 1e-5
    torch.testing.assert_close(result.mean((1, 2, 3)), torch.full((10,), 0.4))
    assert float((result - flat).abs().amax((1, 2, 3)).min()) > 1e-4


def test_erasing_hides_one_rectangle_under_the_mean() -> None:
    pictures = grey(60, 3, 20, 16)
    result = augment(pictures, rng(), replace(OFF, erase=1.0, erase_area=0.25))
    for before, after in zip(pictures, result, strict=True):
        hidden = ((before - after).abs() > 1e-4).any(0)
        rows, columns = hidden.any(1).nonzero().flatten(), hidden.any(0).nonzero().flatten()
        assert hidden.sum() == len(rows) * len(columns) == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert 1 <= int(hidden.sum()) <= 0.4 * hidden.numel()
        level = before.mean((1, 2))[:, None].expand(-1, int(hidden.sum()))
        torch.testing.assert_close(after[:, hidden], level, atol=1e-4, rtol=0)


def test_erasing_leaves_the_pictures_not_chosen() -> None:
    pictures = grey(100)
    result = augment(pictures, rng(), replace(OFF, erase=0.3, erase_area=0.3))
    touched = sum(bool((a - b).abs().max() > 1e-3) for a, b in zip(result, pictures, strict=True))
    assert 15 < touched < 45


def linear(inputs: int = 117, dim: int = 6) -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, dim))


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(math.fsum(v * v for v in vector))
    return [v / length for v in vector]


def moved(picture: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Pixel by pixel, the nearest pixel standing in beyond the edge."""
    _, height, width = picture.shape
    result = torch.empty_like(picture)
    for y in range(height):
        for x in range(width):
            result[:, y, x] = picture[:, min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)]
    return result


@pytest.mark.parametrize("averaged", [False, True])
def test_embed_pictures_equals_loops(averaged: bool) -> None:
    encoder, pictures = linear(), stored()
    expected = []
    for picture in pictures:
        views = [picture]
        if averaged:
            views = [moved(picture, *by) for by in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
            views += [view.flip(-1) for view in views]
        rows = [unit(encoder(standardise(view[None]))[0].tolist()) for view in views]
        expected.append(unit([math.fsum(values) for values in zip(*rows, strict=True)]))
    result = embed_pictures(encoder, pictures, averaged)
    torch.testing.assert_close(result, torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert not result.requires_grad


def test_mirrored_pictures_embed_alike_only_when_averaged() -> None:
    encoder, pictures = linear(), stored()
    torch.testing.assert_close(embed_pictures(encoder, pictures), embed_pictures(encoder, pictures.flip(-1)))
    apart = embed_pictures(encoder, pictures, False) - embed_pictures(encoder, pictures.flip(-1), False)
    assert float(apart.abs().max()) > 0.1


def test_embedding_in_chunks_changes_nothing() -> None:
    encoder, pictures = linear(), stored(7)
    torch.testing.assert_close(embed_pictures(encoder, pictures, batch_size=3), embed_pictures(encoder, pictures))
    assert embed_pictures(encoder, pictures[:0]).shape == (0, 6)
