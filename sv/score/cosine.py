"""Cosine scores of a trial list."""

from collections.abc import Sequence

import numpy as np

from sv.errors import SvError
from sv.kaldi.data_dir import MAX_LISTED
from sv.kaldi.trials import Trials

CHUNK = 1 << 16  # trials at a time: two gathered blocks of 256 floats stay near the cache


def normalize_length(vectors: np.ndarray) -> np.ndarray:
    """Scale (n, dim) vectors to length 1; a zero vector stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(vectors.dtype).tiny)


def score_cosine(trials: Trials, keys: Sequence[str], vectors: np.ndarray) -> np.ndarray:
    """Score every trial by the cosine of its two embeddings.

    Args:
        trials: The list.
        keys: Utterance of each row of ``vectors``.
        vectors: (utterances, dim) float32 embeddings.

    Returns:
        (trials,) float64.

    Raises:
        SvError: The list names utterances without an embedding.
    """
    row_of = {key: row for row, key in enumerate(keys)}
    rows = np.array([row_of.get(u, -1) for u in trials.utterances])
    unknown = [u for u, row in zip(trials.utterances, rows, strict=True) if row < 0]
    if unknown:
        raise SvError(
            f"{len(unknown)} of {len(rows)} utterances of the trial list have no embedding "
            f"({', '.join(unknown[:MAX_LISTED])}); make stages 3 and 6 again"
        )
    unit = normalize_length(vectors)[rows]  # row i belongs to trials.utterances[i]
    scores = np.empty(len(trials.enrol), dtype=np.float64)
    for start in range(0, len(scores), CHUNK):
        part = slice(start, start + CHUNK)
        a, b = unit[trials.enrol[part]], unit[trials.test[part]]
        np.einsum("ij,ij->i", a, b, out=scores[part], dtype=np.float64)
    return scores
