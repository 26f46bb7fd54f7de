"""The encoder: its shapes, its independence of the batch, its refusals."""

import pytest
import torch

from nearfar._errors import InputError, ShapeError
from nearfar.app.encoder import ConvEncoder, EncoderConfig

GREY = EncoderConfig(channels=1, size=(29, 23), widths=(8, 12, 16), dim=10)


def build(config: EncoderConfig = GREY, seed: int = 3) -> ConvEncoder:
    torch.manual_seed(seed)
    return ConvEncoder(config)


def pictures(count: int, config: EncoderConfig = GREY, seed: int = 5) -> torch.Tensor:
    return torch.randn(count, config.channels, *config.size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "config",
    [
        GREY,
        EncoderConfig(channels=3, size=(32, 32), widths=(8, 16), dim=7),
        EncoderConfig(channels=1, size=(1, 1), widths=(5, 3), dim=1),
        EncoderConfig(channels=1, size=(9, 64), widths=(4, 4, 4, 4, 4), dim=2),
    ],
)
def test_any_config_gives_rows_of_dim(config: EncoderConfig) -> None:
    embeddings = build(config)(pictures(4, config))
    assert embeddings.shape == (4, config.dim)
    assert embeddings.dtype == torch.float32
    assert torch.isfinite(embeddings).all()


def test_no_pictures_give_no_rows() -> None:
    assert build()(pictures(0)).shape == (0, GREY.dim)


def test_a_picture_is_embedded_alike_in_any_company() -> None:
    encoder, batch = build(), pictures(6)
    together = encoder(batch)
    alone = torch.cat([encoder(row[None]) for row in batch])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not any("batchnorm" in type(part).__name__.lower() for part in encoder.modules())


def test_training_and_evaluation_mode_agree() -> None:
    encoder, batch = build(), pictures(3)
    assert torch.equal(encoder.train()(batch), encoder.eval()(batch))


def test_same_seed_same_bits_forward_and_backward() -> None:
    runs = []
    for _ in range(2):
        encoder = build()
        value = encoder(pictures(5))
        value.square().sum().backward()
        runs.append([value.detach(), *(p.grad for p in encoder.parameters())])
    assert all(torch.equal(one, two) for one, two in zip(*runs, strict=True))
    assert not torch.equal(build(seed=4)(pictures(5)), runs[0][0])


def test_every_parameter_gets_a_gradient() -> None:
    encoder = build()
    encoder(pictures(4)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_head_sees_where_a_feature_lies() -> None:
    batch = torch.zeros(2, 1, *GREY.size)
    batch[0, 0, 2:6, 2:6] = 1.0
    batch[1, 0, 20:24, 14:18] = 1.0
    left, right = build()(batch)
    assert (left - right).abs().max() > 1e-2


def test_config_survives_lists_and_compares() -> None:
    again = EncoderConfig(channels=1, size=[29, 23], widths=[8, 12, 16], dim=10)  # type: ignore[arg-type]
    assert again == GREY
    assert hash(again) == hash(GREY)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"channels": 2}, "expected channels 1 or 3, got 2"),
        ({"size": (0, 5)}, r"expected a size .*, got \(0, 5\)"),
        ({"size": (5,)}, r"expected a size .*, got \(5,\)"),
        ({"widths": ()}, "expected one width"),
        ({"widths": (8, 0)}, r"got \(8, 0\)"),
        ({"dim": 0}, "expected a dim of 1 or more, got 0"),
    ],
)
def test_impossible_configs_are_refused(change: dict[str, object], said: str) -> None:
    good = {"channels": 1, "size": (8, 8), "widths": (4,), "dim": 2}
    with pytest.raises(InputError, match=said):
        EncoderConfig(**{**good, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, 1, 23, 29), (2, 3, 29, 23), (1, 29, 23), (2, 1, 29, 23, 1)])
def test_pictures_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected pictures of shape \(B, 1, 29, 23\), got .*; resize"):
        build()(torch.zeros(shape))
