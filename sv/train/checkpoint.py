"""Checkpoints: written beside and renamed, loaded with ``weights_only``.

``checkpoints/epoch_003.pt`` is the state after three epochs, ``checkpoints/last.pt`` one within
an epoch, ``checkpoints/best.pt`` that of the epoch with the lowest validation EER. ``final.pt`` is
the trained embedding network alone.
"""

import re
from pathlib import Path
from typing import Any

import torch

from sv.errors import SvError
from sv.files import replacing

FORMAT = "xvector/2"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save a state of tensors, numbers, strings, lists and dicts."""
    with replacing(path, mode="wb") as file:
        torch.save({"format": FORMAT, **state}, file)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load what `save_checkpoint` wrote.

    Raises:
        SvError: No such file, or not one of our checkpoints.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise SvError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch raises pickle, zip and runtime errors for a bad file
        raise SvError(f"{path}: not a checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise SvError(f"{path}: not a checkpoint of this recipe (format {FORMAT})")
    return state


def epoch_checkpoint(folder: Path, epoch: int) -> Path:
    """Name the checkpoint after ``epoch`` epochs."""
    return folder / f"epoch_{epoch:03d}.pt"


def find_epoch_checkpoints(folder: Path) -> list[Path]:
    """List the epoch checkpoints, oldest first."""
    found = [p for p in folder.glob("epoch_*.pt") if re.fullmatch(r"epoch_\d{3,}\.pt", p.name)]
    return sorted(found, key=lambda p: int(p.stem.removeprefix("epoch_")))


def find_latest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Load the state that is furthest on, with its file; None if there is none."""
    paths = [*find_epoch_checkpoints(folder)[-1:], *folder.glob("last.pt")]
    states = [(path, load_checkpoint(path)) for path in paths]
    # Of two at the same step the first: it has the epoch's end behind it.
    return max(states, key=lambda item: item[1]["step"], default=None)


def remove_old_checkpoints(folder: Path, keep: int, spared: int | None) -> None:
    """Remove all but the last ``keep`` epoch checkpoints, and that of the epoch ``spared``."""
    kept = None if spared is None else epoch_checkpoint(folder, spared)
    for old in find_epoch_checkpoints(folder)[:-keep]:
        if old != kept:
            old.unlink()
