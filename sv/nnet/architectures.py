"""Embedding networks of every architecture by name, and what they cost to run."""

import importlib

import torch
from torch import Tensor, nn

from sv.errors import UsageError
from sv.model_name import STUDY_NETWORK, NetworkConfig, check_model_name
from sv.nnet.pooling import POOLINGS


def build_embedding_network(
    name: str, input_dim: int, embedding_dim: int, network: NetworkConfig = STUDY_NETWORK
) -> nn.Module:
    """Build the network of a model name; what is not in the name is in ``network``.

    Returns:
        A module that maps (B, T, input_dim) float32 and, of a padded batch, the valid frames (B,)
        int64 to (B, embedding_dim).

    Raises:
        UsageError: The name or the pooling is unknown.
    """
    module = importlib.import_module(check_model_name(name, network))
    if network.pooling not in POOLINGS:
        raise UsageError(f"unknown pooling '{network.pooling}' (known: {', '.join(POOLINGS)})")
    return module.build_network(name, input_dim, embedding_dim, network)


def compute_cost(
    name: str,
    input_dim: int,
    frames: int,
    embedding_dim: int,
    network: NetworkConfig = STUDY_NETWORK,
) -> tuple[int, float]:
    """Count parameters, and multiply-accumulates of one crop in units of 10^9 (GMAC).

    The network is built and run on torch's "meta" device: shapes only, so that the largest one
    costs neither memory nor time. Convolutions and linear layers are counted, per output
    value; normalisation, activations and the pooled sums are not (under 1 %).

    Raises:
        UsageError: See `build_embedding_network`.
    """
    with torch.device("meta"):
        net = build_embedding_network(name, input_dim, embedding_dim, network).eval()
        macs = 0

        def count(module: nn.Module, _: object, output: Tensor) -> None:
            nonlocal macs
            # Each output value is a dot product with one row of the weight.
            macs += output.numel() * module.weight[0].numel()  # type: ignore[index,union-attr]

        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Conv1d | nn.Linear):
                module.register_forward_hook(count)
        net(torch.empty(1, frames, input_dim))
    return sum(p.numel() for p in net.parameters()), macs / 1e9
