"""Rank correlation of two lists of figures over systems, with what can be said of its certainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEAST_SYSTEMS = 4  # of three, 1 in 3 orders has a correlation of 1 or -1 by chance
_RESAMPLES = 9999  # of the orders; all of them where there are no more
_SEED = 0
_Z = 1.959964  # 95 %, as all intervals of the report


@dataclass(frozen=True)
class Rank:
    """Spearman's correlation; ``reason`` says why it, or ``interval`` and ``p_value``, are None."""

    systems: int
    rho: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    reason: str


def compute_rank(ours: Sequence[float], theirs: Sequence[float]) -> Rank:
    """Compute Spearman's rank correlation of figures of the same systems, in the same order.

    The interval is 95 %, Fisher's z with the variance (1 + rho^2 / 2) / (n - 3); there is none
    where |rho| is 1. The p-value is of a permutation test, two-sided: every order up to seven
    systems, else 9,999 random ones with a fixed seed.

    Source: Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and
        Spearman correlations", Psychometrika 65, 2000.
    """
    systems = len(ours)
    if systems < LEAST_SYSTEMS:
        reason = f"{systems} systems are too few for a rank correlation ({LEAST_SYSTEMS})"
        return Rank(systems, None, None, None, reason)
    ranks = [stats.rankdata(values) for values in (ours, theirs)]
    for who, values in zip(("ours", "published"), ranks, strict=True):
        if np.ptp(values) == 0:
            return Rank(systems, None, None, None, f"all {who} figures are the same")
    x, y = (np.asarray(values) - np.mean(values) for values in ranks)
    scale = math.sqrt(float(x @ x) * float(y @ y))
    rho = max(-1.0, min(1.0, round(float(x @ y) / scale, 12)))
    tested = stats.permutation_test(
        (x,),
        lambda order, axis: np.sum(order * y, axis=axis) / scale,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(_SEED),
    )
    p_value = float(tested.pvalue)
    if abs(rho) == 1:
        return Rank(systems, rho, None, p_value, f"no interval at a correlation of {rho:.0f}")
    half = _Z * math.sqrt((1 + rho**2 / 2) / (systems - 3))
    low, high = (math.tanh(math.atanh(rho) + side * half) for side in (-1, 1))
    return Rank(systems, rho, (low, high), p_value, "")
