"""The networks: every name builds, trains and extracts; padding changes nothing.

The reference at the end is docs/design.md, section 5, written out plainly a second time: it uses
of the library only the names of its weights, and embeds one utterance without padding.
"""

import os
from collections import Counter
from decimal import Decimal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from study_systems import OURS, STUDY

from sv.kaldi.archive import write_archive
from sv.kaldi.data_dir import read_table
from sv.model_name import ModelName, NetworkConfig, parse_model_name
from sv.nnet.architectures import build_embedding_network
from sv.nnet.margin import MarginHead
from sv.nnet.pooling import POOLINGS
from sv.nnet.resnet import ResNet
from sv.nnet.xvector import XVector
from sv.train.embed import embed_utterances


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other make a test slow where others compute too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_no_embedding(name, features, pooling):
    torch.manual_seed(0)
    net = randomize(XVector(parse_model_name(name), features, 32, NetworkConfig(pooling)))
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


def test_one_step_at_every_block_shape_trains():
    for blocks in ((1, 2, 1, 1), (2, 1, 1, 3)):
        for depth in (18, 50):
            net = XVector(ModelName(depth, blocks, Decimal("0.0625")), 21, 8)
            head = MarginHead(8, 4, 30.0)
            loss, _ = head(net(torch.randn(4, 40, 21)), torch.arange(4), 0.2)
            loss.backward()
            assert all(
                p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters()
            )


@pytest.mark.parametrize("name", [*STUDY, *OURS, "resnet152_d", "resnet34_d_1-12-1-1_w0.5"])
def test_every_network_extracts_and_trains_a_step(name):
    """At 9 frames: the widest is 1 GB of weights and as much of gradients."""
    torch.manual_seed(0)
    net = build_embedding_network(name, 81, 256).eval()
    if name in STUDY:
        assert sum(p.numel() for p in net.parameters()) == STUDY[name][1]
    with torch.inference_mode():
        embeddings = net(torch.randn(2, 9, 81), torch.tensor([9, 4]))
    assert embeddings.shape == (2, 256) and torch.isfinite(embeddings).all()
    head = MarginHead(256, 3, 30.0)
    parameters = [*net.parameters(), *head.parameters()]
    loss, _ = head(net.train()(torch.randn(2, 9, 81)), torch.tensor([0, 2]), 0.2)
    loss.backward()
    before = [p.detach().flatten()[0].item() for p in parameters]
    torch.optim.SGD(parameters, lr=0.1).step()
    assert torch.isfinite(loss) and all(torch.isfinite(p).all() for p in parameters)
    moved = [p.flatten()[0].item() != old for p, old in zip(parameters, before, strict=True)]
    assert sum(moved) > 0.8 * len(moved)  # a gradient can be too small to show in float32


def test_the_input_width_follows_the_features():
    for features, size in ((81, 11), (41, 6), (17, 3), (24, 3)):
        net = XVector(parse_model_name("resnet18_w0.0625"), features, 8)
        assert net.resnet.output_dim == 16 * size
        assert net.eval()(torch.randn(1, 20, features)).shape == (1, 8)


def norm(x, w, name):
    """Batch normalisation with the running statistics."""
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean, var = w[f"{name}.running_mean"].view(shape), w[f"{name}.running_var"].view(shape)
    scale, shift = w[f"{name}.weight"].view(shape), w[f"{name}.bias"].view(shape)
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def block(x, w, name, *, stride, convs, excite, project):
    """[BN, ReLU, 3x3] [BN, ReLU, 3x3] ([BN, ReLU, 1x1]), gated, plus the shortcut."""
    y = F.conv2d(F.relu(norm(x, w, f"{name}.norm1")), w[f"{name}.conv1.weight"], None, stride, 1)
    y = F.conv2d(F.relu(norm(y, w, f"{name}.norm2")), w[f"{name}.conv2.weight"], None, 1, 1)
    if convs == 3:
        y = F.conv2d(F.relu(norm(y, w, f"{name}.norm3")), w[f"{name}.conv3.weight"])
    if excite:
        mean = y.flatten(2).sum(2) / (y.shape[2] * y.shape[3])
        e = f"{name}.excitation"
        hidden = mean @ w[f"{e}.squeeze.weight"].T + w[f"{e}.squeeze.bias"]
        hidden = hidden * torch.sigmoid(hidden)  # SiLU
        gate = torch.sigmoid(hidden @ w[f"{e}.excite.weight"].T + w[f"{e}.excite.bias"])
        y = y * gate[:, :, None, None]
    if project:  # of the block's input as it comes, before any normalisation
        x = norm(F.conv2d(x, w[f"{name}.shortcut.0.weight"], None, stride), w, f"{name}.shortcut.1")
    return y + x


def embed(x, w, model, pooling):
    """Embed one utterance, (frames, features)."""
    x = F.conv2d(x.T[None, None], w["resnet.stem.weight"], None, 1, 1)  # (1, C1, F, T)
    x = norm(x, w, "resnet.stem_norm")
    x = x * torch.sigmoid(x)  # SiLU
    for stage in range(4):
        for index in range(model.blocks[stage]):
            first = index == 0 and stage > 0
            before = x.shape
            x = block(
                x, w, f"resnet.stages.{stage}.{index}", stride=2 if first else 1,
                convs=model.convs_per_block, excite=stage < 2, project=first,
            )  # fmt: skip
            ceil = [-(-size // 2) if first else size for size in before[2:]]
            assert list(x.shape[2:]) == ceil
    x = x.flatten(1, 2)[0]  # (C4 * F/8, T/8)
    weights = torch.full_like(x, 1 / x.shape[1])
    if pooling == "asp":
        a, b = "pooling.attention.0", "pooling.attention.2"
        scores = torch.tanh(w[f"{a}.weight"][:, :, 0] @ x + w[f"{a}.bias"][:, None])
        scores = w[f"{b}.weight"][:, :, 0] @ scores + w[f"{b}.bias"][:, None]
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
    mean = (weights * x).sum(1)
    std = ((weights * (x - mean[:, None]) ** 2).sum(1)).clamp(min=1e-5).sqrt()
    x = norm(torch.cat([mean, std])[None], w, "pooled_norm")
    return norm(x @ w["linear.weight"].T + w["linear.bias"], w, "embedding_norm")[0]


@pytest.mark.parametrize("pooling", ["asp", "mean_std"])
@pytest.mark.parametrize("features", [81, 41, 17])
@pytest.mark.parametrize("name", ["resnet18_d_1211_w0.0625", "resnet50_d_2121_w0.125"])
@torch.inference_mode()
def test_the_network_is_the_one_of_the_definition(name, features, pooling):
    torch.manual_seed(0)
    model = parse_model_name(name)
    net = randomize(XVector(model, features, 24, NetworkConfig(pooling)))
    weights = dict(net.state_dict())
    lengths = [73, 72, 50, 8, 1]
    utterances = [torch.randn(n, features) for n in lengths]
    expected = torch.stack([embed(x, weights, model, pooling) for x in utterances])
    alone = torch.cat([net(x[None]) for x in utterances])
    batch = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
    together = net(batch, torch.tensor(lengths))
    for found in (alone, together):
        assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() < 1e-5


def test_extraction_opens_an_archive_once_and_masks_unequal_lengths_alone(tmp_path, monkeypatch):
    lengths = {"a": 60, "b": 60, "c": 60, "d": 50, "e": 49, "f": 49, "g": 7}
    rng, feats = np.random.default_rng(0), {}
    for ark, keys in (("1", "acf"), ("2", "bdeg")):
        items = ((key, rng.normal(size=(lengths[key], 17)).astype(np.float32)) for key in keys)
        write_archive(tmp_path / ark, tmp_path / f"{ark}.scp", items, method="two-byte")
        feats |= read_table(tmp_path / f"{ark}.scp")
    net = randomize(XVector(parse_model_name("resnet18_d_1111_w0.0625"), 17, 8))
    alone, seen = {}, []
    for key, rows in lengths.items():
        alone |= embed_utterances(net, feats, {key: rows}, device=torch.device("cpu"))
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    opened, open_file = Counter(), os.open
    monkeypatch.setattr(os, "open", lambda name, *a: opened.update([name]) or open_file(name, *a))
    pairs = embed_utterances(net, feats, lengths, device=torch.device("cpu"), batch_frames=180)
    found = dict(pairs)
    assert list(found) == list("abcdefg")
    assert opened == {str(tmp_path / "1"): 1, str(tmp_path / "2"): 1}
    assert [(*x.shape, n if n is None else n.tolist()) for x, n in seen] == [
        (3, 60, 17, None), (3, 50, 17, [50, 49, 49]), (1, 7, 17, None),
    ]  # fmt: skip
    for key, embedding in found.items():
        np.testing.assert_allclose(embedding, alone[key], atol=1e-5 * np.abs(alone[key]).max())


@torch.inference_mode()
def test_every_weight_counts():
    """What the reference above does not use would be shown here as a weight without effect."""
    model = parse_model_name("resnet50_d_1111_w0.0625")
    net = randomize(XVector(model, 17, 8))
    weights, x = dict(net.state_dict()), torch.randn(20, 17)
    before = embed(x, weights, model, "asp")
    for name, value in weights.items():
        if value.is_floating_point() and not name.startswith("pooling.attention.2.bias"):
            changed = embed(x, {**weights, name: value + 0.5}, model, "asp")
            assert not torch.equal(changed, before), name
