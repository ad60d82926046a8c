"""The training set of stage 4 as a training sees it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sv.data.crops import CropIndex, load_crop_index
from sv.data.loader import count_steps
from sv.data.training_set import hash_training_set
from sv.errors import SvError
from sv.files import read_json
from sv.kaldi.data_dir import read_table


@dataclass(frozen=True)
class Egs:
    """What is read of it at the start; ``features`` is its front end, None if not known."""

    folder: Path
    index: CropIndex
    speakers: int
    sha256: str
    features: dict[str, Any] | None
    steps_per_epoch: int


def load_egs(folder: Path, batch_size: int) -> Egs:
    """Load the index of a training set.

    Raises:
        SvError: A file is missing or unreadable, or there is not one whole batch.
    """
    index = load_crop_index(folder / "train.npz")
    steps = count_steps(len(index), batch_size)
    if steps < 1:
        raise SvError(
            f"{folder}: {len(index)} utterances do not fill one batch of {batch_size}; "
            "lower batch_size in train.toml"
        )
    return Egs(
        folder=folder,
        index=index,
        speakers=len(read_table(folder / "spk2int")),
        sha256=hash_training_set(folder, index),
        features=read_json(folder / "egs.json").get("features"),
        steps_per_epoch=steps,
    )
