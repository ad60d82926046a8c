"""The held-out trials of a training set, read once and scored after every epoch."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sv.kaldi.data_dir import read_feats
from sv.kaldi.trials import read_trials
from sv.score.backends import score_cosine
from sv.score.metrics import compute_eer, compute_error_curve
from sv.train.embed import embed_utterances
from sv.train.group import Group


class Validation:
    """Held-out utterances and trials.

    Args:
        folder: ``data/egs/valid``.
        device: Where to compute.
        group: The processes that share the utterances.
    """

    def __init__(self, folder: Path, device: torch.device, group: Group) -> None:
        self.device, self.group = device, group
        self.feats, frames = read_feats(folder / "feats.scp", folder / "utt2num_frames")
        # Every so many-th by length, so that all processes have as much to do.
        own = sorted(frames, key=lambda key: (-frames[key], key))[group.rank :: group.size]
        self.frames = {key: frames[key] for key in own}
        self.trials = read_trials(folder / "trials")

    def compute_eer_percent(
        self, net: nn.Module, is_stopping: Callable[[], bool], agree: Callable[[], None]
    ) -> float:
        """Compute the EER of the trials, in percent; leaves ``net`` in evaluation mode.

        Args:
            net: Embedding network.
            is_stopping: Asked between utterances whether to leave the rest out.
            agree: Called when this process is through; raises, in all of them, if one left out its
                rest.
        """
        embedded = []
        pairs = embed_utterances(net, self.feats, self.frames, device=self.device)
        with contextlib.closing(pairs):
            for pair in pairs:
                embedded.append(pair)
                if is_stopping():
                    break
        agree()
        keys, embeddings = zip(*self.group.gather(embedded), strict=True)
        scores = score_cosine(self.trials, keys, np.stack(embeddings))
        return 100 * compute_eer(compute_error_curve(scores, self.trials.is_target))[0]
