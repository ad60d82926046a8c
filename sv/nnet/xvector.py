"""The embedding network: ResNet, pooling, linear layer; and what it costs to run."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sv.model_name import ModelName
from sv.nnet.pooling import AttentiveStatisticsPooling
from sv.nnet.resnet import ResNet

EMBEDDING_DIM = 256  # the study, section 5.1


class XVector(nn.Module):
    """Frames of an utterance -> one embedding.

    Args:
        model: Stage table and width.
        input_dim: Features a frame.
        embedding_dim: Dimensions of the embedding.
    """

    def __init__(
        self, model: ModelName, input_dim: int, embedding_dim: int = EMBEDDING_DIM
    ) -> None:
        super().__init__()
        self.resnet = ResNet(model.blocks, model.channels, model.convs_per_block, input_dim)
        dim = self.resnet.output_dim
        self.pooling = AttentiveStatisticsPooling(dim, model.channels[3] // 2)
        self.pooled_norm = nn.BatchNorm1d(2 * dim)
        self.linear = nn.Linear(2 * dim, embedding_dim)
        self.embedding_norm = nn.BatchNorm1d(embedding_dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed a batch.

        Args:
            x: Features with the utterance mean removed, (B, T, input_dim) float32, zeros behind
                the end of each utterance.
            lengths: Valid frames, (B,) int64; None if all T are valid.

        Returns:
            (B, embedding_dim), not length-normalised.
        """
        x, lengths = self.resnet(x, lengths)
        x = self.pooling(x, lengths)
        return self.embedding_norm(self.linear(self.pooled_norm(x)))


@dataclass(frozen=True)
class Cost:
    """Size of a network: parameters, and multiply-accumulates of one crop in units of 10^9."""

    parameters: int
    gmac: float


def compute_cost(
    model: ModelName, input_dim: int, frames: int, embedding_dim: int = EMBEDDING_DIM
) -> Cost:
    """Count parameters and multiply-accumulates from the network itself.

    The network is built and run on torch's "meta" device: shapes only, so that the largest one
    costs neither memory nor time. Convolutions and linear layers are counted, once an output
    value; normalisation, activations and the pooled sums are not (under 1 %).
    """
    with torch.device("meta"):
        net = XVector(model, input_dim, embedding_dim).eval()
        macs = 0

        def count(module: nn.Module, _: object, output: Tensor) -> None:
            nonlocal macs
            # Each output value is a dot product with one row of the weight.
            macs += output.numel() * module.weight[0].numel()  # type: ignore[index,union-attr]

        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Conv1d | nn.Linear):
                module.register_forward_hook(count)
        net(torch.empty(1, frames, input_dim))
    return Cost(sum(p.numel() for p in net.parameters()), macs / 1e9)
