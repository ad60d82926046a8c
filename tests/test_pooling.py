"""Pooling: means and deviations over the frames that count, by definition and by hand."""

import pytest
import torch

from sv.nnet.pooling import POOLINGS


def test_mean_and_deviation_by_hand():
    """Of 1, 2, 6 (mean 3, variance 14 / 3) and of a value that stands still."""
    pool = POOLINGS["mean_std"](2, 1)
    x = torch.tensor([[[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]]])
    mean1, mean2, deviation, still = pool(x)[0].tolist()
    assert (mean1, mean2) == pytest.approx((3, 4))
    assert deviation == pytest.approx((14 / 3) ** 0.5) and 0 < still < 0.01
    assert not list(pool.parameters())


def test_attention_weighs_the_frames():
    torch.manual_seed(0)
    pool = POOLINGS["asp"](6, 4)
    x = torch.randn(3, 6, 20)
    weights = torch.softmax(pool.attention(x), dim=-1)
    mean = (weights * x).sum(-1)
    deviation = (weights * (x - mean[..., None]) ** 2).sum(-1).sqrt()
    torch.testing.assert_close(pool(x), torch.cat([mean, deviation], 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_does_not_count(name):
    torch.manual_seed(0)
    pool = POOLINGS[name](6, 4)
    lengths = [20, 7, 1]
    batch = 100 * torch.randn(3, 6, 20)  # what lies behind an end is no zero here
    together = pool(batch, torch.tensor(lengths))
    for row, x, length in zip(together, batch, lengths, strict=True):
        torch.testing.assert_close(row, pool(x[None, :, :length])[0], atol=1e-3, rtol=1e-5)
    assert together.shape == (3, pool.output_dim)


@pytest.mark.parametrize("name", POOLINGS)
def test_one_frame_and_a_standing_value_have_a_gradient(name):
    x = torch.full((2, 6, 5), 3.0, requires_grad=True)
    POOLINGS[name](6, 4)(x, torch.tensor([5, 1])).sum().backward()
    assert torch.isfinite(x.grad).all()
