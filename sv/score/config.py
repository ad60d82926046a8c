"""conf/score.toml: what stages 6 and 7 extract and score."""

from dataclasses import dataclass
from typing import Annotated

from sv.config import Minimum

BACKENDS = ("cosine", "cosine_mean", "as_norm")  # see sv.score.backends
PRECISIONS = ("fp32", "fp16", "bf16")  # of stage 6, by autocast; the embedding is float32
NEED_COHORT = ("cosine_mean", "as_norm")


@dataclass(frozen=True)
class ScoreConfig:
    """What is scored, and how.

    ``untrained``: also score every list (by cosine) with the network as it was before training.
    ``backends``: names of `BACKENDS`, each of which scores every list.
    ``cohort_utterances_per_speaker``: how many training utterances of each speaker stage 6
    extracts, if a backend needs them. ``top_n``: the cohort speakers that count in as_norm.
    ``bootstrap_replicates``: how often the speakers of a list are drawn anew for its intervals,
    0: no intervals. ``bootstrap_seed``: of the draws; only lists with the same are compared.
    """

    untrained: bool = False
    backends: tuple[str, ...] = ("cosine",)
    # Enough for a mean (its error falls as 1 / sqrt(n)); all 1.1 million utterances of the
    # study's training set would cost more energy than all of its test sets.
    cohort_utterances_per_speaker: Annotated[int, Minimum(1)] = 20
    top_n: Annotated[int, Minimum(2)] = (
        300  # WeSpeaker examples/voxceleb/v2/run.sh, stage 6, 2025-07
    )
    bootstrap_replicates: Annotated[int, Minimum(0)] = (
        1000  # the ends of a 95 % interval are the 25th from each side
    )
    bootstrap_seed: Annotated[int, Minimum(0)] = 0

    def __post_init__(self) -> None:
        """Check the names."""
        unknown = [name for name in self.backends if name not in BACKENDS]
        if unknown:
            raise ValueError(f"no backend '{unknown[0]}' (known: {', '.join(BACKENDS)})")
        if not self.backends or len(set(self.backends)) < len(self.backends):
            raise ValueError("backends must name at least one, each once")

    @property
    def needs_cohort(self) -> bool:
        """Return whether stage 6 must extract training utterances."""
        return any(name in NEED_COHORT for name in self.backends)
