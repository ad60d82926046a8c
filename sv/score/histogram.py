"""Histogram of the scores of target and nontarget trials."""

import numpy as np

BINS = 100


def compute_histogram(scores: np.ndarray, is_target: np.ndarray) -> dict[str, object]:
    """Count target and nontarget trials in equal bins over the range of all scores.

    Args:
        scores: (trials,) finite floats.
        is_target: (trials,) bool.

    Returns:
        ``edges`` (bins + 1), ``targets`` and ``nontargets`` (bins): lists, ready for JSON.
    """
    edges = np.histogram_bin_edges(scores, BINS)
    return {
        "edges": edges.tolist(),
        "targets": np.histogram(scores[is_target], edges)[0].tolist(),
        "nontargets": np.histogram(scores[~is_target], edges)[0].tolist(),
    }
