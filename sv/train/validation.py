"""The held-out trials of a training set, read once and scored after every epoch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sv.kaldi.data_dir import read_feats
from sv.kaldi.trials import read_trials
from sv.score.cosine import score_cosine
from sv.score.metrics import compute_eer, compute_error_curve
from sv.train.embed import embed_utterances


class Validation:
    """Held-out utterances and trials.

    Args:
        folder: ``data/egs/valid``.
        device: Where to compute.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.device = device
        self.feats, self.frames = read_feats(folder / "feats.scp", folder / "utt2num_frames")
        self.trials = read_trials(folder / "trials")

    def compute_eer_percent(self, net: nn.Module, pause: Callable[[], None]) -> float:
        """Compute the EER of the trials, in percent; leaves ``net`` in evaluation mode.

        Args:
            net: Embedding network.
            pause: Called between utterances; it may raise to end the validation.
        """
        keys, embeddings = [], []
        for key, embedding in embed_utterances(net, self.feats, self.frames, device=self.device):
            keys.append(key)
            embeddings.append(embedding)
            pause()
        scores = score_cosine(self.trials, keys, np.stack(embeddings))
        return 100 * compute_eer(compute_error_curve(scores, self.trials.is_target))[0]
