"""conf/score.toml: what stage 7 scores."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreConfig:
    """``untrained``: also score every list with the network as it was before training."""

    untrained: bool = False
