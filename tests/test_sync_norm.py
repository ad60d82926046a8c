"""Batch normalisation over several processes against torch's own on the whole batch."""

import sys

import pytest
import torch
import torch.distributed as dist
from conftest import call
from torch import nn

from sv.nnet.sync_norm import SyncNorm, convert_norms


@pytest.fixture
def alone():
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4), (2, 3, 2, 2)])
def test_gradients_of_the_normalisation(alone, shape):
    norm = SyncNorm(3, dtype=torch.double)
    torch.manual_seed(1)
    nn.init.normal_(norm.weight)
    x = (3 * torch.randn(shape, dtype=torch.double) + 10).requires_grad_()

    def normalise(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(normalise, (x, norm.weight, norm.bias))
    with pytest.raises(ValueError, match="more than one value"):
        norm(x[:1].flatten(2).mean(2) if x.dim() > 2 else x[:1])


HALVES = """
import os, sys, torch, torch.distributed as dist
from torch import nn
from sv.nnet.sync_norm import convert_norms
folder, child = sys.argv[1], os.fork()
rank = int(not child)
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
whole = torch.load(f"{folder}/whole.pt", weights_only=True)
for kind, (x, grad, weight, bias, *expected) in whole.items():
    norm = (nn.BatchNorm2d if x.dim() == 4 else nn.BatchNorm1d)(x.shape[1])
    net = nn.Sequential(norm)
    with torch.no_grad():
        norm.weight.copy_(weight), norm.bias.copy_(bias)
    convert_norms(net)
    part = slice(None, 5) if rank == 0 else slice(5, None)  # not even halves
    x, grad = x[part].clone().requires_grad_(), grad[part]
    for _ in range(2):
        y = net(x)
    y.backward(grad)
    sums = net[0].weight.grad, net[0].bias.grad
    for tensor in sums:
        dist.all_reduce(tensor)
    found = y.detach(), x.grad, *sums, net[0].running_mean, net[0].running_var
    y_all, x_grad, *rest = expected
    close = dict(rtol=1e-5, atol=2e-2 if x.dtype == torch.bfloat16 else 2e-5)
    for a, b in zip(found, (y_all[part], x_grad[part], *rest), strict=True):
        torch.testing.assert_close(a, b, **close)
    assert net[0].num_batches_tracked == 2 and list(net.state_dict())[0] == "0.weight"
    net.eval()
    torch.testing.assert_close(net(x), norm.eval()(x), **close)
dist.destroy_process_group()
sys.exit(child and os.waitpid(child, 0)[1] > 0)
"""


def test_the_normalisation_of_two_parts_is_that_of_the_whole(tmp_path):
    """Output, gradients and running statistics; a mean far from 0, parts of unequal size."""
    torch.manual_seed(0)
    whole = {}
    for kind, shape, dtype in (
        ("maps", (8, 4, 3, 5), torch.float32),
        ("vectors", (8, 4), torch.float32),
        ("half", (8, 4, 3, 5), torch.bfloat16),
    ):
        norm = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(4)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        offset = 3.0 if dtype == torch.bfloat16 else 30.0
        x = (torch.randn(shape) + offset).to(dtype).requires_grad_()
        grad = torch.randn(shape).to(dtype)
        for _ in range(2):
            y = norm(x)
        y.backward(grad)
        whole[kind] = [
            x.detach(), grad, norm.weight.detach(), norm.bias.detach(), y.detach(), x.grad,
            norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var,
        ]  # fmt: skip
    torch.save(whole, tmp_path / "whole.pt")
    done = call([sys.executable, "-c", HALVES, tmp_path], timeout=240)
    assert done.returncode == 0, done.stderr


def test_conversion_keeps_the_tensors():
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3, eps=0.1, momentum=0.3)))
    before = dict(net.state_dict(keep_vars=True))
    convert_norms(net)
    after = dict(net.state_dict(keep_vars=True))
    assert list(before) == list(after) and all(before[k] is after[k] for k in before)
    norm = net[1][0]
    assert isinstance(norm, SyncNorm) and (norm.eps, norm.momentum) == (0.1, 0.3)
