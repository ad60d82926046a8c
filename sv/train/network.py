"""Embedding networks by name, seed or checkpoint."""

from pathlib import Path

import torch
from torch import nn

from sv.model_name import parse_model_name
from sv.nnet.xvector import XVector
from sv.train.checkpoint import load_checkpoint
from sv.train.config import TrainConfig, read_train_config


def build_network(name: str, config: TrainConfig, input_dim: int) -> nn.Module:
    """Build the network as it is before training: the same weights for the same seed."""
    torch.manual_seed(config.seed)
    return XVector(parse_model_name(name), input_dim, config.embedding_dim)


def load_network(path: Path, device: torch.device) -> nn.Module:
    """Build the embedding network of a checkpoint or ``final.pt``, ready to embed.

    Raises:
        SvError: See `sv.train.checkpoint.load_checkpoint`.
    """
    state = load_checkpoint(path, device)
    net = XVector(parse_model_name(state["model"]), state["input_dim"], state["embedding_dim"])
    net.load_state_dict(state["net"])
    return net.to(device).eval()


def load_untrained_network(exp_dir: Path, device: torch.device) -> nn.Module:
    """Build what the network of ``exp_dir`` was before training, from its config's seed."""
    state = load_checkpoint(exp_dir / "final.pt")
    config = read_train_config(exp_dir / "config.toml")
    return build_network(state["model"], config, state["input_dim"]).to(device).eval()
