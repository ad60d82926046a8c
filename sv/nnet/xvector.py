"""The embedding network of the study: ResNet, pooling, linear layer."""

import contextlib

import torch
from torch import Tensor, nn

from sv.model_name import STUDY_NETWORK, ModelName, NetworkConfig, parse_model_name
from sv.nnet.pooling import POOLINGS
from sv.nnet.resnet import ResNet


class XVector(nn.Module):
    """Frames of an utterance -> one embedding."""

    def __init__(
        self,
        model: ModelName,
        input_dim: int,
        embedding_dim: int = 256,  # the study, section 5.1
        network: NetworkConfig = STUDY_NETWORK,
    ) -> None:
        super().__init__()
        channels = model.count_channels(network)
        self.resnet = ResNet(model.blocks, channels, model.convs_per_block, input_dim)
        self.pooling = POOLINGS[network.pooling](self.resnet.output_dim, channels[3] // 2)
        dim = self.pooling.output_dim
        self.pooled_norm = nn.BatchNorm1d(dim)
        self.linear = nn.Linear(dim, embedding_dim)
        self.embedding_norm = nn.BatchNorm1d(embedding_dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed a batch.

        Args:
            x: Features with the utterance mean removed, (B, T, input_dim) float32, zeros after
                the end of each utterance.
            lengths: Valid frames, (B,) int64; None if all T are valid.

        Returns:
            (B, embedding_dim), not length-normalised.
        """
        x, lengths = self.resnet(x, lengths)
        x = self.pooling(x, lengths)
        # In float32 under autocast too: bfloat16 would leave three digits of an embedding.
        kind = x.device.type
        is_half = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if is_half else contextlib.nullcontext():
            return self.embedding_norm(self.linear(self.pooled_norm(x)))


def build_network(name: str, input_dim: int, embedding_dim: int, network: NetworkConfig) -> XVector:
    """Build the network of a ResNet's name; see `sv.nnet.architectures.build_embedding_network`."""
    return XVector(parse_model_name(name), input_dim, embedding_dim, network)
