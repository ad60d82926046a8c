"""The training head: a softmax over cosines in which the own speaker must win by a margin.

One weight vector a speaker, or several (sub-centres), of which the nearest counts. The margin
is added to the angle (``aam``, the study's) or taken from the cosine (``am``). Another head is a
function of the target's cosine in `MARGINS`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def widen_angle(target: Tensor, margin: float) -> Tensor:
    """Give cos(angle + margin) for cosines: additive angular margin.

    Source: Deng et al., "ArcFace", CVPR 2019.
    """
    sine = (1 - target * target).clamp(min=1e-7).sqrt()
    widened = target * math.cos(margin) - sine * math.sin(margin)
    # Beyond pi - margin the cosine would rise again; go on falling along a line.
    beyond = target <= -math.cos(margin)
    return torch.where(beyond, target - margin * math.sin(margin), widened)


def lower_cosine(target: Tensor, margin: float) -> Tensor:
    """Give cosine - margin: additive margin.

    Source: Wang et al., "Additive Margin Softmax", IEEE Signal Processing Letters 2018.
    """
    return target - margin


# [margin] head of conf/train.toml -> what the margin does to the target's cosine.
MARGINS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "aam": widen_angle,
    "am": lower_cosine,
    "sub_centre_aam": widen_angle,
}


class MarginHead(nn.Module):
    """Cosines to the weight vectors of all speakers, the target's lowered by a margin.

    Args:
        embedding_dim: Dimensions of an embedding.
        speakers: Number of classes.
        scale: Factor on the cosines before the softmax.
        kind: A name of `MARGINS`.
        sub_centres: Weight vectors a speaker; the nearest to an embedding is the speaker's.

    Sub-centres: Deng et al., "Sub-center ArcFace", ECCV 2020.
    """

    def __init__(
        self,
        embedding_dim: int,
        speakers: int,
        scale: float,
        *,
        kind: str = "aam",
        sub_centres: int = 1,
    ) -> None:
        super().__init__()
        # The sub-centres of a speaker are neighbours.
        self.weight = nn.Parameter(torch.empty(speakers * sub_centres, embedding_dim))
        nn.init.xavier_normal_(self.weight)
        self.scale, self.sub_centres = scale, sub_centres
        self.apply_margin = MARGINS[kind]

    def forward(self, embeddings: Tensor, speakers: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Compute the loss and the number of right answers.

        Args:
            embeddings: (B, embedding_dim).
            speakers: Class of each, (B,) int64.
            margin: Radians added to the target's angle, 0 <= margin < pi / 2; of ``am`` what is
                taken from its cosine.

        Returns:
            Mean cross-entropy (scalar) and how many crops are nearest to their own speaker's
            vector (scalar int64), the margin left out.
        """
        # In float32 under autocast too: near cos = 1 half precision cannot tell speakers apart.
        with torch.autocast(embeddings.device.type, enabled=False):
            cosine = F.linear(F.normalize(embeddings.float()), F.normalize(self.weight.float()))
            if self.sub_centres > 1:
                cosine = cosine.unflatten(1, (-1, self.sub_centres)).amax(dim=2)  # (B, speakers)
            correct = (cosine.detach().argmax(dim=1) == speakers).sum()
            if margin > 0:
                target = cosine.gather(1, speakers[:, None])  # (B, 1)
                cosine = cosine.scatter(1, speakers[:, None], self.apply_margin(target, margin))
            return F.cross_entropy(self.scale * cosine, speakers), correct
