"""The figures of a training as TensorBoard events, where the package tensorboard is installed."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path


class Events:
    """Scalars by step in ``folder``; without tensorboard they go nowhere.

    Args:
        folder: Gets an event file a run.
        step: Steps done when the run begins. What an earlier run wrote at this step or later is
            declared void: this run computes it again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer = None
        if importlib.util.find_spec("tensorboard") is None:
            logging.info("no TensorBoard events: the package tensorboard is not installed")
            return
        # Only now: the package is optional, and heavy.
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        self._writer = SummaryWriter(str(folder), purge_step=step)

    def write(self, step: int, figures: Mapping[str, float], prefix: str) -> None:
        """Write a scalar ``prefix/name`` for each figure."""
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def flush(self) -> None:
        """Bring what was written to disk: a checkpoint must not know more than the events."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
