"""The training set of stage 4: crops to train on, held-out trials to validate with."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sv.data.crops import CropIndex, load_crop_index, validate_features
from sv.data.loader import count_steps
from sv.data.staging import use_copies
from sv.data.training_set import hash_training_set
from sv.errors import SvError
from sv.files import read_object
from sv.kaldi.data_dir import read_feats, read_table
from sv.kaldi.trials import read_trials
from sv.score.backends import Scorer
from sv.score.metrics import compute_eer, compute_error_curve
from sv.score.trials import match_embeddings
from sv.train.embed import embed_utterances
from sv.train.group import Group


@dataclass(frozen=True)
class Egs:
    """What a training knows of its training set; ``features`` is the front end, None if unknown."""

    folder: Path
    index: CropIndex
    speakers: int
    sha256: str
    features: dict[str, Any] | None
    steps_per_epoch: int


def load_egs(folder: Path, batch_size: int, features_root: Path | None = None) -> Egs:
    """Load the index of a training set; its archives may be copies (`sv.data.staging`).

    Raises:
        SvError: A file is missing or unreadable, or the set is smaller than one batch.
    """
    index = load_crop_index(folder / "train.npz")
    validate_features(index)
    steps = count_steps(len(index), batch_size)
    if steps < 1:
        raise SvError(
            f"{folder}: {len(index)} utterances do not fill one batch of {batch_size}; "
            "lower batch_size in train.toml"
        )
    return Egs(
        folder=folder,
        index=use_copies(index, features_root) if features_root else index,
        speakers=len(read_table(folder / "spk2int")),
        sha256=hash_training_set(folder, index),
        features=read_object(folder / "egs.json").get("features"),
        steps_per_epoch=steps,
    )


class Validation:
    """The held-out utterances and trials, read once and scored after every epoch.

    Args:
        folder: ``data/egs/valid``.
        device: Where to compute.
        group: The processes that share the utterances.
    """

    def __init__(self, folder: Path, device: torch.device, group: Group) -> None:
        self.device, self.group = device, group
        self.feats, frames = read_feats(folder / "feats.scp", folder / "utt2num_frames")
        # Every size-th by length, so that all processes have the same amount of work.
        own = sorted(frames, key=lambda key: (-frames[key], key))[group.rank :: group.size]
        self.frames = {key: frames[key] for key in own}
        self.trials = read_trials(folder / "trials")

    def compute_eer_percent(
        self, net: nn.Module, is_stopping: Callable[[], bool], agree: Callable[[], None]
    ) -> float:
        """Compute the EER of the trials, in percent; leaves ``net`` in evaluation mode.

        Args:
            net: Embedding network.
            is_stopping: Called after every utterance; true: skip the rest.
            agree: Called when this process is done; raises, in all processes, if one of them
                skipped utterances.
        """
        embedded = []
        pairs = embed_utterances(net, self.feats, self.frames, device=self.device)
        with contextlib.closing(pairs):
            for key, embedding in pairs:
                embedded.append((key, embedding.tolist()))
                if is_stopping():
                    break
        agree()
        keys, embeddings = zip(*self.group.gather(embedded), strict=True)
        vectors = match_embeddings(self.trials, keys, np.array(embeddings, np.float32))
        scores, _ = Scorer(self.trials, vectors).score("cosine")
        return 100 * compute_eer(compute_error_curve(scores, self.trials.is_target))[0]
