"""Adaptive score normalisation (AS-norm): a score against those of the nearest strangers.

A cohort of training speakers is scored against every utterance, once for each utterance and not
for each trial. How an utterance's highest cohort scores lie is what its scores are measured in.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sv.errors import SvError
from sv.kaldi.trials import Trials

# Utterances at a time: 1024 x 5994 float32 cohort scores are 25 MB a thread. Fixed, so that the
# products, and so the scores, do not depend on the number of threads.
_UTTERANCES = 1024


@dataclass(frozen=True)
class CohortStatistics:
    """Mean and standard deviation of each utterance's highest cohort scores, float64."""

    mean: np.ndarray
    deviation: np.ndarray


def compute_cohort_statistics(
    unit: np.ndarray, cohort: np.ndarray, *, top_n: int, num_threads: int = 1
) -> CohortStatistics:
    """Score every utterance against the cohort and describe its highest scores.

    Args:
        unit: (utterances, dim) float32 of length 1.
        cohort: (speakers, dim) float32 of length 1.
        top_n: How many of the highest scores count, 2 <= top_n <= speakers.
        num_threads: Blocks of utterances done at once.

    Raises:
        SvError: The highest scores of an utterance are all the same: nothing to measure by.
    """
    if not 2 <= top_n <= len(cohort):
        raise ValueError(f"top_n {top_n} of {len(cohort)} speakers")
    mean, deviation = (np.empty(len(unit)) for _ in range(2))

    def describe(start: int) -> None:
        block = slice(start, start + _UTTERANCES)
        scores = unit[block] @ cohort.T  # (block, speakers)
        scores.partition(len(cohort) - top_n, axis=1)
        highest = np.sort(scores[:, -top_n:], axis=1)  # sums in one order, whatever partition does
        mean[block] = highest.mean(axis=1, dtype=np.float64)
        deviation[block] = highest.std(axis=1, dtype=np.float64)

    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(describe, range(0, len(unit), _UTTERANCES)))
    flat = np.count_nonzero(deviation == 0)
    if flat:
        raise SvError(
            f"{flat} of {len(unit)} utterances have the same score against all of their nearest "
            f"{top_n} cohort speakers: AS-norm has nothing to measure by"
        )
    return CohortStatistics(mean, deviation)


def normalize_scores(
    scores: np.ndarray, trials: Trials, statistics: CohortStatistics
) -> np.ndarray:
    """Normalise the scores of a list by the statistics of both sides, and average the two.

    Args:
        scores: (trials,) float32.
        trials: The list.
        statistics: Of ``trials.utterances``, in their order.

    Returns:
        (trials,) float32.

    Source: Matějka et al., "Analysis of Score Normalization in Multilingual Speaker
    Recognition", Interspeech 2017 (adaptive S-norm, each side with its own cohort).
    """
    # (s - m1) / d1 + (s - m2) / d2 is linear in s: two terms for each utterance.
    slope = 0.5 / statistics.deviation
    offset = slope * statistics.mean
    normalized = scores * (slope[trials.enrol] + slope[trials.test])
    normalized -= offset[trials.enrol]
    normalized -= offset[trials.test]
    return normalized.astype(np.float32)
