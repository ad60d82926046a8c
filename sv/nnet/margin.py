"""The training head: additive angular margin softmax (AAM, ArcFace)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AdditiveAngularMargin(nn.Module):
    """Cosines to one weight vector a speaker, the target's angle widened by a margin.

    Args:
        embedding_dim: Dimensions of an embedding.
        speakers: Number of classes.
        scale: Factor on the cosines before the softmax.

    Source: Deng et al., "ArcFace", CVPR 2019.
    """

    def __init__(self, embedding_dim: int, speakers: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(speakers, embedding_dim))
        nn.init.xavier_normal_(self.weight)
        self.scale = scale

    def forward(self, embeddings: Tensor, speakers: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Compute the loss and the number of right answers.

        Args:
            embeddings: (B, embedding_dim).
            speakers: Class of each, (B,) int64.
            margin: Radians added to the target's angle, 0 <= margin < pi / 2.

        Returns:
            Mean cross-entropy (scalar) and how many crops are nearest to their own speaker's
            vector (scalar int64), the margin left out.
        """
        # In float32 under autocast too: near cos = 1 half precision cannot tell speakers apart.
        with torch.autocast(embeddings.device.type, enabled=False):
            cosine = F.linear(F.normalize(embeddings.float()), F.normalize(self.weight.float()))
            correct = (cosine.detach().argmax(dim=1) == speakers).sum()
            if margin > 0:
                target = cosine.gather(1, speakers[:, None])  # (B, 1)
                sine = (1 - target * target).clamp(min=1e-7).sqrt()
                widened = target * math.cos(margin) - sine * math.sin(margin)
                # Beyond pi - margin the cosine would rise again; go on falling along a line.
                beyond = target <= -math.cos(margin)
                widened = torch.where(beyond, target - margin * math.sin(margin), widened)
                cosine = cosine.scatter(1, speakers[:, None], widened)
            return F.cross_entropy(self.scale * cosine, speakers), correct
