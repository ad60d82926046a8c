"""The network: what a padded batch may not change, what the head computes."""

import math
from decimal import Decimal

import pytest
import torch
import torch.nn.functional as F

from sv.model_name import ModelName, parse_model_name
from sv.nnet.margin import AdditiveAngularMargin
from sv.nnet.pooling import AttentiveStatisticsPooling
from sv.nnet.resnet import ResNet
from sv.nnet.xvector import XVector


def randomize(net, seed=0):
    """Give a network the look of a trained one: normalisations that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            module.running_var.copy_(
                torch.rand(module.running_var.shape, generator=generator) + 0.5
            )
    return net.eval()


@pytest.mark.parametrize("name", ["resnet18_w0.0625", "resnet50_d_2111_w0.0625"])
@pytest.mark.parametrize("features", [81, 41, 17])
def test_padding_changes_no_embedding(name, features):
    torch.manual_seed(0)
    net = randomize(XVector(parse_model_name(name), features, 32))
    lengths = [97, 96, 61, 33, 9, 1]  # odd, even, and shorter than the stride
    utterances = [torch.randn(n, features) for n in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
    with torch.inference_mode():
        alone = torch.cat([net(x[None]) for x in utterances])
        together = net(batch, torch.tensor(lengths))
        crowded = net(F.pad(batch, (0, 0, 0, 50)), torch.tensor(lengths))
    for padded in (together, crowded):
        assert ((padded - alone).norm(dim=1) / alone.norm(dim=1)).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_padding_changes_no_long_embedding_in_half_precision(dtype):
    """81 x 1700 cells are more than float16 can count."""
    torch.manual_seed(0)
    net = randomize(XVector(parse_model_name("resnet18_w0.0625"), 81, 32))
    lengths = [1700, 1500]
    utterances = [torch.randn(n, 81) for n in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype):
        alone = torch.cat([net(x[None]) for x in utterances]).float()
        together = net(batch, torch.tensor(lengths)).float()
    assert F.cosine_similarity(alone, together).min() > 0.999


def test_maps_shrink_by_eight_rounded_up():
    net = ResNet((1, 1, 1, 1), (4, 4, 8, 8), 3, 81)
    x, lengths = net(torch.randn(2, 350, 81), torch.tensor([350, 17]))
    assert x.shape == (2, 8 * 11, 44) and net.output_dim == 88
    assert lengths.tolist() == [44, 3]


def test_blocks_are_preactivation_with_se_in_the_first_two_stages():
    net = ResNet((2, 2, 2, 2), (8, 8, 16, 16), 3, 41)
    for stage, stack in enumerate(net.stages):
        for index, block in enumerate(stack):
            assert (block.excitation is not None) == (stage < 2)
            # Projected at the first block of stages 2 to 4: stride 2 in each.
            assert (block.shortcut is not None) == (stage > 0 and index == 0)
            assert block.norm1.num_features == block.conv1.in_channels
            assert [c.kernel_size[0] for c in (block.conv1, block.conv2, block.conv3)] == [3, 3, 1]
            assert all(c.bias is None for c in (block.conv1, block.conv2, block.conv3))


def test_pooling_is_a_weighted_mean_and_deviation():
    pool = AttentiveStatisticsPooling(6, 4)
    x = torch.randn(3, 6, 20)
    weights = torch.softmax(pool.attention(x), dim=-1)
    mean = (weights * x).sum(-1)
    deviation = (weights * (x - mean[..., None]) ** 2).sum(-1).sqrt()
    torch.testing.assert_close(pool(x), torch.cat([mean, deviation], 1), atol=1e-4, rtol=1e-4)


def test_margin_widens_the_targets_angle_only():
    head = AdditiveAngularMargin(16, 5, scale=30.0)
    x, y = torch.randn(8, 16), torch.arange(8) % 5
    cosine = F.linear(F.normalize(x), F.normalize(head.weight))
    plain, correct = head(x, y, 0.0)
    torch.testing.assert_close(plain, F.cross_entropy(30 * cosine, y))
    assert correct == (cosine.argmax(1) == y).sum()
    angle = torch.acos(cosine.gather(1, y[:, None]))
    widened = cosine.scatter(1, y[:, None], torch.cos(angle + 0.2))
    loss, _ = head(x, y, 0.2)
    torch.testing.assert_close(loss, F.cross_entropy(30 * widened, y), atol=1e-4, rtol=1e-4)
    assert loss > plain


@pytest.mark.parametrize("sign", [1, -1])
def test_margin_is_finite_and_falls_at_the_ends(sign):
    head = AdditiveAngularMargin(4, 3, scale=30.0)
    x = (sign * head.weight.data[:1]).clone().requires_grad_()
    loss, _ = head(x, torch.tensor([0]), 0.2)
    loss.backward()
    assert math.isfinite(loss.item()) and torch.isfinite(x.grad).all()


def test_one_step_at_every_block_shape_trains():
    for blocks in ((1, 2, 1, 1), (2, 1, 1, 3)):
        for depth in (18, 50):
            net = XVector(ModelName(depth, blocks, Decimal("0.0625")), 21, 8)
            head = AdditiveAngularMargin(8, 4, 30.0)
            loss, _ = head(net(torch.randn(4, 40, 21)), torch.arange(4), 0.2)
            loss.backward()
            assert all(
                p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters()
            )
