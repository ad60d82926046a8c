"""Cosine scores of a trial list."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sv.errors import SvError
from sv.kaldi.data_dir import MAX_LISTED
from sv.kaldi.trials import Trials

_TRIALS = 512  # at a time: two gathered blocks of 256 floats stay in a core's own cache
_VECTORS = 4096  # normalised at a time: float64 copies stay small


def normalize_length(vectors: np.ndarray) -> np.ndarray:
    """Scale (n, dim) float32 vectors to length 1, in float64; a zero vector stays zero."""
    unit = np.empty_like(vectors)
    for start in range(0, len(vectors), _VECTORS):
        part = vectors[start : start + _VECTORS].astype(np.float64)
        norms = np.linalg.norm(part, axis=1, keepdims=True)
        unit[start : start + _VECTORS] = part / np.maximum(norms, np.finfo(np.float64).tiny)
    return unit


def find_rows(trials: Trials, keys: Sequence[str]) -> np.ndarray:
    """Give the row of each of the list's utterances, (utterances,) int64.

    Args:
        trials: The list.
        keys: Utterance of each row.

    Raises:
        SvError: The list names utterances that have no row, no embedding.
    """
    row_of = {key: row for row, key in enumerate(keys)}
    rows = np.array([row_of.get(u, -1) for u in trials.utterances])
    unknown = [u for u, row in zip(trials.utterances, rows, strict=True) if row < 0]
    if unknown:
        raise SvError(
            f"{len(unknown)} of {len(rows)} utterances of the trial list have no embedding "
            f"({', '.join(unknown[:MAX_LISTED])}); make stages 3 and 6 again"
        )
    return rows


def score_pairs(unit: np.ndarray, trials: Trials, *, num_threads: int = 1) -> np.ndarray:
    """Score every trial by the inner product of its two vectors.

    Args:
        unit: (utterances, dim) float32, row i belongs to ``trials.utterances[i]``.
        trials: The list.
        num_threads: How many parts of it are scored at once; the scores do not depend on it.

    Returns:
        (trials,) float32. Sums are float32 too: for vectors of length 1 the error is about
        1e-7, that of the embeddings themselves, and half the memory traffic is saved, which is
        what the time goes into.
    """
    scores = np.empty(len(trials.enrol), dtype=np.float32)

    def score(start: int, stop: int) -> None:
        a, b = (np.empty((_TRIALS, unit.shape[1]), dtype=np.float32) for _ in range(2))
        for first in range(start, stop, _TRIALS):
            last = min(first + _TRIALS, stop)
            # clip: without it numpy fills a buffer of its own first, in case of a wrong index.
            rows = [
                np.take(unit, index[first:last], axis=0, out=out[: last - first], mode="clip")
                for index, out in ((trials.enrol, a), (trials.test, b))
            ]
            np.vecdot(*rows, out=scores[first:last])

    edges = np.linspace(0, len(scores), num_threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(score, edges[:-1], edges[1:]))
    return scores


def score_cosine(
    trials: Trials, keys: Sequence[str], vectors: np.ndarray, *, num_threads: int = 1
) -> np.ndarray:
    """Score every trial by the cosine of its two embeddings.

    Args:
        trials: The list.
        keys: Utterance of each row of ``vectors``.
        vectors: (utterances, dim) float32 embeddings.
        num_threads: See `score_pairs`.

    Returns:
        (trials,) float32, see `score_pairs`.

    Raises:
        SvError: The list names utterances without an embedding.
    """
    rows = find_rows(trials, keys)
    return score_pairs(normalize_length(vectors[rows]), trials, num_threads=num_threads)
