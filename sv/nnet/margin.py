"""The training head: a softmax over cosines in which the true speaker must win by a margin.

There is one weight vector per speaker, or several (sub-centres) of which the nearest counts. The
margin is added to the angle (``aam``, the study's) or subtracted from the cosine (``am``). Another
head is a function of the target's cosine in `MARGINS`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def widen_angle(target: Tensor, margin: float) -> Tensor:
    """Return cos(angle + margin) for cosines: additive angular margin.

    Source: Deng et al., "ArcFace", CVPR 2019.
    """
    sine = (1 - target * target).clamp(min=1e-7).sqrt()
    widened = target * math.cos(margin) - sine * math.sin(margin)
    # Beyond pi - margin the cosine would rise again; it continues along a falling line.
    beyond = target <= -math.cos(margin)
    return torch.where(beyond, target - margin * math.sin(margin), widened)


def lower_cosine(target: Tensor, margin: float) -> Tensor:
    """Return cosine - margin: additive margin.

    Source: Wang et al., "Additive Margin Softmax", IEEE Signal Processing Letters 2018.
    """
    return target - margin


# [margin] head of conf/train.toml -> function of the target's cosine and the margin.
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
        sub_centres: Weight vectors per speaker; the nearest to an embedding counts.

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
        # The sub-centres of a speaker are adjacent rows.
        self.weight = nn.Parameter(torch.empty(speakers * sub_centres, embedding_dim))
        nn.init.xavier_normal_(self.weight)
        self.scale, self.sub_centres = scale, sub_centres
        self.apply_margin = MARGINS[kind]

    def forward(self, embeddings: Tensor, speakers: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Compute the loss and the number of correct answers.

        Args:
            embeddings: (B, embedding_dim).
            speakers: Class of each, (B,) int64.
            margin: Radians added to the target's angle, 0 <= margin < pi / 2; with ``am``
                subtracted from its cosine.

        Returns:
            Mean cross-entropy (scalar) and the number of crops that are nearest to their own
            speaker's vector (scalar int64), without the margin.
        """
        # In float32 under autocast too: near cos = 1 half precision cannot separate speakers.
        with torch.autocast(embeddings.device.type, enabled=False):
            cosine = F.linear(F.normalize(embeddings.float()), F.normalize(self.weight.float()))
            if self.sub_centres > 1:
                cosine = cosine.unflatten(1, (-1, self.sub_centres)).amax(dim=2)  # (B, speakers)
            correct = (cosine.detach().argmax(dim=1) == speakers).sum()
            if margin > 0:
                target = cosine.gather(1, speakers[:, None])  # (B, 1)
                cosine = cosine.scatter(1, speakers[:, None], self.apply_margin(target, margin))
            return F.cross_entropy(self.scale * cosine, speakers), correct
