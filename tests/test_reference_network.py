"""The network against docs/design.md, section 4, written out plainly a second time.

The reference below knows of the library only the names of its weights. It embeds one utterance
without padding; the network embeds all of them in one padded batch.
"""

import pytest
import torch
import torch.nn.functional as F
from test_network import randomize

from sv.model_name import parse_model_name
from sv.nnet.xvector import XVector


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
    net = randomize(XVector(model, features, 24, pooling))
    weights = dict(net.state_dict())
    lengths = [73, 72, 50, 8, 1]
    utterances = [torch.randn(n, features) for n in lengths]
    expected = torch.stack([embed(x, weights, model, pooling) for x in utterances])
    alone = torch.cat([net(x[None]) for x in utterances])
    batch = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
    together = net(batch, torch.tensor(lengths))
    for found in (alone, together):
        assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() < 1e-5


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
