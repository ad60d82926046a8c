"""Backends: the named ways from embeddings to scores."""

import logging
from collections.abc import Sequence

import numpy as np

from sv.errors import SvError
from sv.kaldi.trials import Trials
from sv.score.cohort import Cohort
from sv.score.config import NEED_COHORT
from sv.score.cosine import find_rows, normalize_length, score_pairs
from sv.score.norm import compute_cohort_statistics, normalize_scores


def score_trials(
    backend: str,
    trials: Trials,
    keys: Sequence[str],
    vectors: np.ndarray,
    *,
    cohort: Cohort | None = None,
    top_n: int = 300,
    num_threads: int = 1,
) -> tuple[np.ndarray, dict[str, int]]:
    """Score a trial list.

    Args:
        backend: ``cosine``; ``cosine_mean``: the mean of the cohort's embeddings is subtracted
            first; ``as_norm``: cosine, then `sv.score.norm` with the cohort's speakers.
        trials: The list.
        keys: Utterance of each row of ``vectors``.
        vectors: (utterances, dim) float32 embeddings.
        cohort: Needed by all but ``cosine``.
        top_n: Cohort speakers that count in ``as_norm``; all of them where there are fewer.
        num_threads: Parts scored at once.

    Returns:
        (trials,) float32 scores, and what the backend was given, for the metrics file.

    Raises:
        SvError: An utterance has no embedding; the cohort does not fit.
    """
    if backend in NEED_COHORT and cohort is None:
        raise ValueError(f"{backend} needs a cohort")
    if cohort and len(cohort.mean) != vectors.shape[1]:
        raise SvError(
            f"embeddings of the cohort have {len(cohort.mean)} dimensions, those to score "
            f"{vectors.shape[1]}: they are of different networks; make stage 6 again"
        )
    vectors = vectors[find_rows(trials, keys)]
    parameters = {}
    if backend == "cosine_mean":
        vectors -= cohort.mean.astype(np.float32)  # a copy already: its rows were picked
        parameters = {"cohort_utterances": cohort.utterances}
    unit = normalize_length(vectors)
    scores = score_pairs(unit, trials, num_threads=num_threads)
    if backend == "as_norm":
        speakers = len(cohort.means)
        if speakers < 2:
            raise SvError("the cohort has 1 speaker: AS-norm needs at least 2")
        if speakers < top_n:
            logging.warning("top_n is %d, the cohort has %d speakers: all count", top_n, speakers)
        statistics = compute_cohort_statistics(
            unit,
            normalize_length(cohort.means),
            top_n=min(top_n, speakers),
            num_threads=num_threads,
        )
        scores = normalize_scores(scores, trials, statistics)
        parameters = {
            "top_n": min(top_n, speakers),
            "cohort_speakers": speakers,
            "cohort_utterances": cohort.utterances,
        }
    return scores, parameters
