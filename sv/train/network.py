"""Embedding networks and training heads by name, config, seed or checkpoint."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sv.nnet.architectures import build_embedding_network
from sv.nnet.margin import MarginHead
from sv.train.config import TrainConfig, read_train_config
from sv.train.store import load_checkpoint


def build_network(name: str, config: TrainConfig, input_dim: int) -> nn.Module:
    """Build the network as it is before training: the same weights for the same seed."""
    torch.manual_seed(config.seed)
    return build_embedding_network(name, input_dim, config.embedding_dim, config.network.pooling)


def build_head(config: TrainConfig, speakers: int) -> MarginHead:
    """Build the training head as it is before training."""
    # With its own seed: the head's size must not change the network's initial weights.
    torch.manual_seed(config.seed + 1)
    margin = config.margin
    return MarginHead(
        config.embedding_dim,
        speakers,
        margin.scale,
        kind=margin.head,
        sub_centres=margin.centres,
    )


def load_network(path: Path, device: torch.device) -> nn.Module:
    """Build the embedding network of a checkpoint or ``final.pt``, ready to embed.

    Raises:
        SvError: See `sv.train.store.load_checkpoint`.
    """
    return _ready(rebuild_network(load_checkpoint(path, device)), device)


def rebuild_network(state: dict[str, Any]) -> nn.Module:
    """Build the network of a loaded checkpoint or ``final.pt``, with its weights."""
    net = build_embedding_network(
        state["model"], state["input_dim"], state["embedding_dim"], state["pooling"]
    )
    net.load_state_dict(state["net"])
    return net


def load_untrained_network(exp_dir: Path, device: torch.device) -> nn.Module:
    """Build the network of ``exp_dir`` as it was before training, from its config's seed."""
    state = load_checkpoint(exp_dir / "final.pt")
    config = read_train_config(exp_dir / "config.toml")
    return _ready(build_network(state["model"], config, state["input_dim"]), device)


def _ready(net: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device on which it embeds.

    Channels last is 1.5 times as fast (tests/bench/extraction.py). Training is contiguous: torch
    sums the variance of a channels-last batch too roughly (tests/bench/train_step.py).
    """
    return net.to(device, memory_format=torch.channels_last).eval()
