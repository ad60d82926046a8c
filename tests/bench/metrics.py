#!/usr/bin/env python3
"""EER and minDCF at three operating points against numpy's own sort of the same scores.

Usage: python3 tests/bench/metrics.py [ROUNDS [SCORES]]

Baseline: np.sort of the same float64 scores. Beside it, what most toolkits do: argsort and
cumulated counts. Rounds are interleaved, times are medians. Ours sorts targets and nontargets
apart, each in a thread, and searches the lowest cost: about 1 x np.sort on two busy cores.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sv.score.metrics import P_TARGETS, compute_metrics  # noqa: E402


def count_by_argsort(scores: np.ndarray, is_target: np.ndarray) -> list[float]:
    """EER (%) and minDCF from one argsort; ties are not looked at."""
    labels = is_target[np.argsort(scores)]
    targets = np.count_nonzero(labels)
    miss = np.cumsum(labels) / targets
    false_alarm = 1 - np.cumsum(~labels) / (len(labels) - targets)
    at = int(np.argmax(miss >= false_alarm))
    costs = [(p * miss + (1 - p) * false_alarm).min() / min(p, 1 - p) for p in P_TARGETS]
    return [50 * (miss[at] + false_alarm[at]), *costs]


def main() -> None:
    """Measure lists of several kinds and print the ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    rng = np.random.default_rng(0)
    for share, decimals in ((0.5, None), (0.1, None), (0.005, None), (0.1, 3)):
        is_target = rng.random(count) < share
        scores = rng.normal(size=count) + 2.5 * is_target
        if decimals:
            scores = np.round(scores, decimals)
        times: dict[str, list[float]] = {"np.sort": [], "ours": [], "argsort": []}
        for _ in range(rounds):
            for name, function in (
                ("np.sort", lambda s=scores: np.sort(s)),
                ("ours", lambda s=scores, t=is_target: compute_metrics(s, t)),
                ("argsort", lambda s=scores, t=is_target: count_by_argsort(s, t)),
            ):
                started = time.perf_counter()
                result = function()
                times[name].append(time.perf_counter() - started)
                if name == "ours":
                    ours = [result.eer_percent, *result.min_dcf.values()]
                if name == "argsort" and not decimals:
                    assert np.allclose(ours, result, atol=1e-3), (ours, result)
        base = statistics.median(times["np.sort"])
        ties = f", rounded to {decimals} decimals" if decimals else ""
        print(f"{count} scores, {100 * share:g} % targets{ties}, {rounds} rounds")
        for name, values in times.items():
            median = statistics.median(values)
            spread = f"({min(values):.3f}-{max(values):.3f})"
            print(f"  {name:8} {median:.3f} s {spread}  {median / base:5.2f} x np.sort")


if __name__ == "__main__":
    main()
