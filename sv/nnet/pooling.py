"""Pooling: the frames of an utterance into one vector, by its name in conf/train.toml.

Attentive statistics (``asp``, the study's) weight the frames by a small attention network; plain
statistics (``mean_std``) weight them equally. Another pooling is a class here and a line in
`POOLINGS`.
"""

import torch
from torch import Tensor, nn

from sv.nnet.resnet import time_mask

# The slope of the square root is infinite at 0: the variance of a constant dimension.
MIN_VARIANCE = 1e-5


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and standard deviation over time, one weight per dimension and frame.

    The attention network has ``bottleneck`` hidden values.

    Source: Okabe et al., "Attentive Statistics Pooling", Interspeech 2018; one weight per
    dimension as in the study's toolkit.
    """

    def __init__(self, dim: int, bottleneck: int) -> None:
        super().__init__()
        self.output_dim = 2 * dim
        self.attention = nn.Sequential(
            nn.Conv1d(dim, bottleneck, 1), nn.Tanh(), nn.Conv1d(bottleneck, dim, 1)
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool (B, dim, T) into (B, 2 * dim), means first.

        Args:
            x: Frames, (B, dim, T).
            lengths: Valid frames of each item, (B,) int64, at least 1; None if all are valid.
        """
        # In float32 under autocast too: a mean of squares in float16 overflows at 256.
        scores, x = self.attention(x).float(), x.float()
        if lengths is not None:
            valid = time_mask(lengths, x.shape[-1])[:, None, :]
            scores, x = scores.masked_fill(~valid, -torch.inf), x * valid
        return _pool(x, torch.softmax(scores, dim=-1))


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over time, all frames weighted equally; no bottleneck.

    Source: Snyder et al., "X-vectors", ICASSP 2018.
    """

    def __init__(self, dim: int, bottleneck: int) -> None:
        super().__init__()
        self.output_dim = 2 * dim

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool (B, dim, T) into (B, 2 * dim); see `AttentiveStatisticsPooling.forward`."""
        x = x.float()
        if lengths is None:
            return _pool(x, x.new_ones(1, 1, 1) / x.shape[-1])
        valid = time_mask(lengths, x.shape[-1])[:, None, :]
        return _pool(x * valid, valid / lengths[:, None, None].float())


def _pool(x: Tensor, weights: Tensor) -> Tensor:
    """Mean and deviation of (B, dim, T) by weights that are 0 for invalid frames."""
    mean = (weights * x).sum(dim=-1, keepdim=True)
    # In two passes: E[x^2] - E[x]^2 loses its digits where the mean is large.
    variance = (weights * (x - mean).square()).sum(dim=-1)
    return torch.cat([mean.squeeze(-1), variance.clamp(min=MIN_VARIANCE).sqrt()], dim=1)


# [network] pooling of conf/train.toml -> class(dim, bottleneck) with an `output_dim`.
POOLINGS: dict[str, type[nn.Module]] = {
    "asp": AttentiveStatisticsPooling,
    "mean_std": StatisticsPooling,
}
