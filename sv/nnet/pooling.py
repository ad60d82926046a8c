"""Attentive statistics pooling: frames weighted by a small attention network, then mean and std."""

import torch
from torch import Tensor, nn

from sv.nnet.resnet import time_mask

# The slope of the square root is infinite at 0, where a dimension does not vary at all.
MIN_VARIANCE = 1e-5


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and standard deviation over time, a weight for each dimension and frame.

    Args:
        dim: Dimensions of a frame.
        bottleneck: Hidden size of the attention network.

    Source: Okabe et al., "Attentive Statistics Pooling", Interspeech 2018; one weight for each
    dimension as in the study's toolkit.
    """

    def __init__(self, dim: int, bottleneck: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Conv1d(dim, bottleneck, 1), nn.Tanh(), nn.Conv1d(bottleneck, dim, 1)
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool (B, dim, T) into (B, 2 * dim), means first.

        Args:
            x: Frames, (B, dim, T).
            lengths: Valid frames of each item, (B,) int64, at least 1; None if all are valid.
        """
        scores = self.attention(x)
        if lengths is not None:
            valid = time_mask(lengths, x.shape[-1])[:, None, :]
            scores = scores.masked_fill(~valid, -torch.inf)
        # In float32 under autocast too: a mean of squares in float16 overflows at 256.
        x, scores = x.float(), scores.float()
        if lengths is not None:
            x = x * valid
        weights = torch.softmax(scores, dim=-1)
        mean = (weights * x).sum(dim=-1, keepdim=True)
        # In two passes: E[x^2] - E[x]^2 loses its digits where the mean is large.
        variance = (weights * (x - mean).square()).sum(dim=-1)
        return torch.cat([mean.squeeze(-1), variance.clamp(min=MIN_VARIANCE).sqrt()], dim=1)
